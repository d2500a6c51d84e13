// stream -> cut into segments -> [compress -> hash -> (encrypt) -> put] x workers -> index … -> manifest
#pragma once

#include <memory>

#include "base/job_context.h"
#include "config/settings.h"
#include "storage/object_store.h"
#include "storage/snapshot_format.h"
#include "storage/throttle.h"

namespace guestagent {

struct SnapshotSummary {
  std::string href;  // of the manifest
  Manifest manifest;
};

// What the stream's owner knows once it has ended.
struct StreamFacts {
  std::string tool;
  std::string format;
  std::string dataset_json;
  std::vector<std::string> requires_list;
};

class SnapshotWriter {
 public:
  // Nothing is stored yet. `store`, `job` and `throttle` outlive the writer. already_exists when the id is taken on the store.
  SnapshotWriter(ObjectStore& store, std::string id, const SnapshotSettings& settings, Throttle& throttle, JobContext& job);
  ~SnapshotWriter();

  // Reads `stream` to its end and stores it. Memory: at most settings.memory_limit, whatever the sizes. When the store is slower than
  // the stream, finished segments wait on disk within settings.spill. On any failure every thread has ended when the Error
  // leaves; discard() then removes what was stored.
  void write(ByteSource& stream, std::optional<std::uint64_t> expected_bytes);

  // Writes the last index, the joined stream (if the store can) and, last of all, the manifest. REQUIRES: write() returned.
  SnapshotSummary finish(const StreamFacts& facts);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent

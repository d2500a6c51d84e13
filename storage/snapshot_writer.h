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
  // Nothing is stored yet. `store`, `job` and `throttle` outlive the writer. already_exists when the id is taken on the store,
  // invalid_argument when it is no id, and what load_keys() throws.
  SnapshotWriter(ObjectStore& store, std::string id, const SnapshotSettings& settings, Throttle& throttle, JobContext& job);
  ~SnapshotWriter();

  // Reads `stream` to its end and stores it. Memory: at most settings.memory_limit, whatever the sizes (where that is too small for
  // settings.segment_bytes, segments are smaller). When the store is slower than the stream, finished segments wait on disk within
  // settings.spill. Before the first object is stored the journal has the step "objects": {"snapshot_id", "spill"}, the latter a
  // directory that may be there after a crash. On any failure every thread has ended and the spilled segments are gone when the
  // Error leaves; what was stored stays for delete_snapshot(). Once.
  void write(ByteSource& stream, std::optional<std::uint64_t> expected_bytes);

  // Writes the last index, the joined stream (if the store can and nothing is encrypted) and, last of all, the manifest. Throws
  // data_loss when the stream was empty. REQUIRES: write() returned.
  SnapshotSummary finish(const StreamFacts& facts);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent

// claim -> stream -> cut into segments -> [compress -> hash -> (encrypt) -> put] x workers -> index … -> claim ->
// manifest -> claim
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
  // Nothing is stored yet. `store`, `job` and `throttle` outlive the writer; `host` is who others are told has the id.
  // already_exists when the id is taken on the store, invalid_argument when it is no id, and what load_keys() throws.
  SnapshotWriter(ObjectStore& store, std::string id, const SnapshotSettings& settings, Throttle& throttle,
                 JobContext& job, std::string host = "a host");
  ~SnapshotWriter();

  // Makes the id this writer's on the store, before anything costly is done for it; what write() does first otherwise.
  // Before anything is stored the journal has the step "objects" (see snapshot_journal.h). already_exists when somebody
  // else has it.
  void claim();

  // Reads `stream` to its end and stores it. Memory: at most settings.memory_limit, whatever the sizes (where that is
  // too small for settings.segment_bytes, segments are smaller). When the store is slower than the stream, finished
  // segments wait on disk within settings.spill. No object is ever replaced: already_exists where one is there that was
  // not sent from here. On any failure every thread has ended and the spilled segments are gone when the Error leaves;
  // what was stored stays for undo_snapshot(). Once.
  void write(ByteSource& stream, std::optional<std::uint64_t> expected_bytes);

  // Writes the last index, the joined stream (if the store can and nothing is encrypted; that it cannot is a warning)
  // and, last of all, the manifest. Throws data_loss when the stream was empty, failed_precondition when the claim is
  // not ours any more: somebody has deleted the snapshot. REQUIRES: write() returned.
  SnapshotSummary finish(const StreamFacts& facts);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent

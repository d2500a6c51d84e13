// A snapshot that is still being made: what is stored of it is fetched while more comes, so that little is left to
// fetch when its manifest is there.
//
// Until then nothing says whether what came is right: it waits on disk as it came, and is looked at when the manifest
// and its indexes promise what it should be. What is not that is fetched again.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/job_context.h"
#include "config/settings.h"
#include "storage/object_store.h"
#include "storage/throttle.h"

namespace guestagent {

// Where the segments of a snapshot that is followed wait, within settings.spill: known from the settings and the id
// alone, so that whoever recovers a dead job can remove it with remove_tree().
fs::path follower_path(const SnapshotSettings& settings, std::string_view snapshot_id);

class Follower {
 public:
  // Everything outlives it. `silence`: for how long no sign of the source may come.
  Follower(ObjectStore& store, std::string snapshot_id, const SnapshotSettings& settings, Throttle& throttle,
           Millis silence, Clock& clock, JobContext& job);
  ~Follower();

  // Returns when the manifest is there. Throws not_found when the snapshot was given up, was deleted or is another's
  // now, deadline_exceeded after a silence, cancelled, and what the store says.
  void wait();

  // The store, as a reader of the snapshot is to see it: with what was fetched. Only its get_promised() differs. Dies
  // with this.
  ObjectStore& store();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent

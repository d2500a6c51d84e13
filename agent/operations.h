// The methods of the RPC contract, as functions of params that were read: where a byte stream of a datastore
// meets a store.
//
// None of them cleans up after itself: each journals what it is about to make, and recover() undoes that,
// after a failure as after a crash.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "agent/jobs.h"
#include "agent/params.h"
#include "base/job_context.h"
#include "base/json.h"
#include "config/settings.h"
#include "storage/object_store.h"
#include "storage/throttle.h"
#include "strategies/datastores.h"

namespace guestagent {

struct ObjectsStep;

// From here on the job is a success: a crash finishes what is left of it and undoes nothing. Answers `result`.
std::string journal_result(JobContext& job, std::string result);

// All methods but the plans' and the status answer their result as JSON text. All throw Error, and may be called from
// any thread (the changing ones one at a time).
class Operations {
 public:
  // Everything outlives it.
  Operations(const Settings& settings, ObjectStore& store, Datastore& datastore, DatastoreUpkeep& upkeep,
             DatastoreRoles& roles, Throttle& throttle, Clock& clock);

  // What reads those params that are the engine's own; and the name that snapshots for it have.
  const Datastore& datastore() const { return datastore_; }
  const std::string& datastore_name() const { return settings_.datastore; }

  // Long, changing; run as jobs.
  std::string get_replication_snapshot(const SnapshotParams& params, JobContext& job);
  std::string attach_replication_slave(const AttachRequest& request, JobContext& job);
  std::string stage_replication_snapshot(const StageParams& params, JobContext& job);
  std::string discard_staged_snapshot(const SnapshotMetadata& snapshot, JobContext& job);
  std::string detach_replication_slave(const DetachRequest& request, JobContext& job);
  std::string delete_replication_snapshot(const std::string& href, JobContext& job);
  std::string cleanup_replication_source(const std::string& replication_user, JobContext& job);
  std::string set_read_only(const ReadOnlyRequest& request, JobContext& job);
  std::string open_replication_source(const NoParams& params, JobContext& job);
  std::string demote_replication_source(const DemoteParams& params, JobContext& job);
  // Long, only reading; run as jobs too, but without the lock.
  std::string verify_replication_snapshot(const std::string& href, JobContext& job);
  std::string checksum_tables(const ChecksumParams& params, JobContext& job);
  std::string wait_for_position(const WaitParams& params, JobContext& job);

  // What each would check and do; nothing is touched.
  Plan plan_snapshot(const SnapshotParams& params);
  Plan plan_attach(const AttachRequest& request);
  Plan plan_stage(const StageParams& params);
  Plan plan_discard(const SnapshotMetadata& snapshot);
  Plan plan_detach(const DetachRequest& request);
  Plan plan_delete(const std::string& href);
  Plan plan_cleanup(const std::string& replication_user);
  Plan plan_verify(const std::string& href);
  Plan plan_checksum(const ChecksumParams& params);
  Plan plan_read_only(const ReadOnlyRequest& request);
  Plan plan_open_source(const NoParams& params);
  Plan plan_demote(const DemoteParams& params);
  Plan plan_wait(const WaitParams& params);

  // At once.
  std::string list_replication_snapshots();
  ReplicationStatus get_replication_status();
  std::string get_replication_position();
  std::string get_info(const std::vector<std::string_view>& methods);

  // Finishes or undoes a job that failed or died: the datastore's part and the store's.
  Jobs::Recovery recover(const std::string& method, JobContext& job);

  // `guestagent cat` and `guestagent restore`: the verified raw stream; extracted and prepared in the empty
  // directory `to`.
  void cat(std::string_view href, ByteSink& out, JobContext& job);
  void restore(std::string_view href, const fs::path& to, JobContext& job);

 private:
  void recover_objects(const std::string& method, const ObjectsStep& step, Jobs::Recovery& recovery);
  std::string finished_result(Undertaking what, const Journal& journal);

  const Settings& settings_;
  ObjectStore& store_;
  Datastore& datastore_;
  DatastoreUpkeep& upkeep_;
  DatastoreRoles& roles_;
  Throttle& throttle_;
  Clock& clock_;
};

}  // namespace guestagent

// The dry runs of Operations.
#include "agent/foreground_job.h"
#include "agent/host_checks.h"
#include "agent/operations.h"
#include "agent/plans.h"
#include "agent/snapshot_metadata.h"
#include "base/id.h"
#include "storage/snapshot_reader.h"
#include "storage/snapshots.h"

namespace guestagent {
namespace {

Check check_server_answers(Datastore& datastore) {
  return check_by("server", "the database server answers", [&] {
    if (const ServerDescription server = datastore.describe(); !server.reachable)
      throw Error(Code::unavailable, server.unreachable_because);
  });
}

}  // namespace

Plan Operations::plan_snapshot(const SnapshotParams& params) {
  const std::string id = params.snapshot_id ? *params.snapshot_id : new_id(clock_);
  Plan plan = datastore_.plan_snapshot({id});
  plan.checks.push_back(check_places_apart(settings_));
  plan.checks.push_back(
      check_by("store", "the store answers and has no snapshot " + id, [&] { check_id_is_free(store_, id, {}); }));
  plan.steps.push_back("store the copy as " + store_.href(id + "/manifest.json") + ", compressed with " +
                       params.compression.value_or(settings_.snapshot.compression));
  return plan;
}

Plan Operations::plan_attach(const AttachRequest& request) {
  Plan plan;
  plan.checks.push_back(check_places_apart(settings_));
  std::string server = "{}";
  const std::string what = request.snapshot.has_data ? "snapshot " + request.snapshot.id +
                                                           " is there and is the one that the metadata tells of"
                                                     : "a source is told of, without a copy";
  plan.checks.push_back(check_by("snapshot", what, [&] {
    check_datastore(request.snapshot, settings_.datastore, "attach");
    if (!request.snapshot.has_data) return;
    ForegroundJob look;
    SnapshotReader reader(store_, request.snapshot.snapshot_href, settings_.snapshot, throttle_, look);
    check_same_snapshot(request.snapshot, reader.manifest(), datastore_);
    server = read_server(reader.manifest().dataset_json);
  }));
  if (plan.checks.back().result == Check::Result::failed) return plan;
  Plan there = datastore_.plan_attach(request, server);
  plan.checks.insert(plan.checks.end(), there.checks.begin(), there.checks.end());
  plan.steps = std::move(there.steps);
  return plan;
}

Plan Operations::plan_stage(const StageParams& params) {
  Plan plan;
  plan.checks.push_back(check_places_apart(settings_));
  plan.checks.push_back(check_by("snapshot", params.follow ? "the store is there" : "the snapshot is there", [&] {
    if (params.snapshot) check_datastore(*params.snapshot, settings_.datastore, "stage");
    ForegroundJob look;
    if (params.follow) {
      read_claim(store_, snapshot_id_of(store_, params.href), {});
      return;
    }
    const SnapshotReader reader(store_, params.href, settings_.snapshot, throttle_, look);
    if (params.snapshot) check_same_snapshot(*params.snapshot, reader.manifest(), datastore_);
  }));
  plan.steps.push_back("fetch " + params.href + ", verify, extract and prepare it beside the data");
  return plan;
}

Plan Operations::plan_discard(const SnapshotMetadata& snapshot) {
  Plan plan;
  plan.steps.push_back("remove what this host has staged of snapshot " + snapshot.id);
  return plan;
}

Plan Operations::plan_detach(const DetachRequest& request) {
  return datastore_.plan_stop(request);
}

Plan Operations::plan_delete(const std::string& href) {
  const std::string id = snapshot_id_of(store_, href);
  std::uint64_t objects = 0;
  std::string whose;
  Plan plan;
  plan.checks.push_back(check_by("store", "the store answers", [&] {
    store_.list(id + "/", [&](const ObjectInfo&) { ++objects; }, {});
    if (const auto claim = read_claim(store_, id, {})) whose = " (of " + holder_of(*claim) + ")";
  }));
  plan.steps = {"remove the manifest of snapshot " + id + whose + ", then the rest of its " + std::to_string(objects) +
                " objects"};
  return plan;
}

Plan Operations::plan_cleanup(const std::string& replication_user) {
  Plan plan = upkeep_.plan_release(replication_user);
  plan.checks.insert(plan.checks.begin(), check_server_answers(datastore_));
  return plan;
}

Plan Operations::plan_verify(const std::string& href) {
  Plan plan;
  std::uint64_t segments = 0;
  plan.checks.push_back(check_by("snapshot", "its manifest is there and whole", [&] {
    ForegroundJob look;
    segments = SnapshotReader(store_, href, settings_.snapshot, throttle_, look).manifest().segments;
  }));
  plan.steps = {"read " + std::to_string(segments) + " segments back and check each"};
  return plan;
}

Plan Operations::plan_checksum(const ChecksumParams& params) {
  Plan plan;
  plan.checks.push_back(check_server_answers(datastore_));
  plan.steps = {(params.tables.empty() ? std::string("read all user tables")
                                       : "read " + std::to_string(params.tables.size()) + " tables") +
                " in one consistent view"};
  return plan;
}

}  // namespace guestagent

#include "agent/operations.h"

#include <array>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "agent/foreground_job.h"
#include "agent/host_checks.h"
#include "agent/methods.h"
#include "agent/operation_roles.h"
#include "agent/plans.h"
#include "agent/progress_view.h"
#include "agent/snapshot_metadata.h"
#include "agent/status_json.h"
#include "base/id.h"
#include "base/log.h"
#include "config/units.h"
#include "storage/follower.h"
#include "storage/snapshot_journal.h"
#include "storage/snapshot_reader.h"
#include "storage/snapshot_writer.h"
#include "storage/snapshots.h"

namespace guestagent {
namespace {

constexpr unsigned kProtocolVersion = 1;
// A store that does not answer must not hold up what has nothing to do with it.
constexpr Seconds kLeftoverPatience{20};

// Requests a stop when its time is up.
class TimeLimit {
 public:
  explicit TimeLimit(Seconds limit)
      : timer_([this, limit](std::stop_token ended) {
          std::mutex mutex;
          std::unique_lock lock(mutex);
          std::condition_variable_any().wait_for(lock, ended, limit, [] { return false; });
          if (!ended.stop_requested()) source_.request_stop();
        }) {}
  std::stop_token token() { return source_.get_token(); }

 private:
  std::stop_source source_;
  std::jthread timer_;
};

// `found`: whose the snapshot was.
std::string deleted(std::uint64_t objects, const std::optional<Claim>& found) {
  JsonWriter out;
  out.begin_object().member("deleted", true).member("objects", objects);
  if (found && !found->token.empty()) {
    out.key("claimed_by").begin_object().member("host", found->host).member("since", found->since).end_object();
  }
  return out.end_object().text();
}

// What a manifest says costs a store nothing: a small object may stand for more than the disk has.
void require_space(const fs::path& to, std::uint64_t raw_bytes, std::uint64_t there = 0) {
  std::uint64_t needed = raw_bytes + raw_bytes / 50 + 64 * kMiB;
  needed -= std::min(needed, there);
  const std::uint64_t free = free_bytes(to);
  if (free >= needed) return;
  throw Error(Code::resource_exhausted,
              "restore into " + to.string() + ": " + human_bytes(free) + " free, " + human_bytes(needed) + " needed",
              "free space there, or name a place on a larger file system");
}

std::string attached(const AttachOutcome& outcome, std::uint64_t resumed_bytes, const ReplicationStatus& status) {
  JsonWriter out;
  out.begin_object().member("state", "replica");
  outcome.own.write_members(out);
  out.member("read_only", outcome.read_only).member("resumed_bytes", resumed_bytes);
  out.key("status").raw(write_status(status)).end_object();
  return out.text();
}

std::string released(const std::string& replication_user) {
  JsonWriter out;
  out.begin_object().member("dropped", true).member("replication_user", replication_user).end_object();
  return out.text();
}

std::string detached(const OwnJson& last_applied, const std::vector<std::string>& dropped,
                     const ReplicationStatus& status) {
  JsonWriter out;
  out.begin_object().member("state", "standalone").key("last_applied").raw(last_applied.text());
  out.key("dropped_accounts").begin_array();
  for (const std::string& user : dropped) out.value(user);
  out.end_array();
  out.key("status").raw(write_status(status)).end_object();
  return out.text();
}

void require_places_apart(const Settings& settings, JobContext& job) {
  Plan places;
  places.checks.push_back(check_places_apart(settings));
  require_passed(places, job);
}

PieceSource::Kind kind_of(const SnapshotMetadata& snapshot) {
  return {snapshot.format, snapshot.tool, snapshot.digest};
}

// The directory of what was fetched of a snapshot that is still being made.
constexpr std::string_view kFollowStep = "follow";
std::string write_follow(const fs::path& dir) {
  return JsonWriter().begin_object().member("dir", dir.string()).end_object().text();
}
void remove_followed(const Journal& journal) {
  const Journal::Step* step = journal.find(kFollowStep);
  if (!step) return;
  const JsonDocument document = parse_json(step->data, "journal step follow");
  remove_tree(JsonReader(document, "follow", Code::internal).string("dir"));
}

}  // namespace

std::string journal_result(JobContext& job, std::string result) {
  JsonWriter out;
  out.begin_object().key("result").raw(result).end_object();
  try {
    job.journal().record(kResultStep, out.text());
  } catch (const Error& e) {
    if (!job.journal().find(kResultStep)) throw;
    job.warn(e.what());  // it is on the disk: there is no way back
  }
  return result;
}

Operations::Operations(const Settings& settings, ObjectStore& store, Datastore& datastore, DatastoreUpkeep& upkeep,
                       DatastoreRoles& roles, Throttle& throttle, Clock& clock)
    : settings_(settings),
      store_(store),
      datastore_(datastore),
      upkeep_(upkeep),
      roles_(roles),
      throttle_(throttle),
      clock_(clock) {}

std::string Operations::get_replication_snapshot(const SnapshotParams& params, JobContext& job) {
  const SnapshotRequest request{params.snapshot_id ? *params.snapshot_id : new_id(clock_)};
  SnapshotSettings settings = settings_.snapshot;
  if (params.compression) settings.compression = *params.compression;

  job.phase("check");
  require_places_apart(settings_, job);
  upkeep_.tend();
  SnapshotWriter writer(store_, request.snapshot_id, settings, throttle_, job, host_needs(settings_).address);
  require_passed(datastore_.plan_snapshot(request), job);

  writer.claim();
  job.has_place(store_.href(request.snapshot_id + '/' + std::string(kManifestName)));
  const std::unique_ptr<SnapshotStream> stream = datastore_.open_snapshot(request, job);
  job.phase("copy");
  writer.write(*stream, stream->expected_bytes());
  const SourceFacts facts = stream->facts();
  job.phase("manifest");
  const SnapshotSummary stored =
      writer.finish({facts.tool, facts.format, write_dataset(settings_.datastore, facts), facts.requires_list});
  return journal_result(job, write_metadata(make_metadata(settings_.datastore, facts, stored)));
}

std::string Operations::attach_replication_slave(const AttachRequest& request, JobContext& job) {
  check_datastore(request.snapshot, settings_.datastore, "attach");
  job.phase("check");
  require_places_apart(settings_, job);
  fs::path staging;
  bool data_is_here = false;
  std::uint64_t resumed = 0;
  AttachRequest told = request;
  if (!request.snapshot.has_data) {
    require_passed(datastore_.plan_attach(request, "{}"), job);
    data_is_here = true;
  } else {
    SnapshotReader reader(store_, request.snapshot.snapshot_href, settings_.snapshot, throttle_, job);
    check_same_snapshot(request.snapshot, reader.manifest(), datastore_);
    told.server_json = read_server(reader.manifest().dataset_json);
    const Plan plan = datastore_.plan_attach(request, told.server_json);
    require_passed(plan, job);
    data_is_here = plan.data_is_here;
    if (!data_is_here) {
      staging = upkeep_.make_staging(reader.kind(), job);
      job.phase("fetch");
      resumed = datastore_.receive(reader, staging, job);
    }
  }
  if (data_is_here) {
    AttachRequest from_here = request;
    from_here.data_is_here = true;
    const AttachOutcome outcome = datastore_.start_replicating(from_here, job);
    const std::string result = journal_result(job, attached(outcome, 0, upkeep_.status()));
    upkeep_.discard_staged(kind_of(request.snapshot), job);
    return result;
  }
  job.phase("switch");
  const std::unique_ptr<Installation> installation = datastore_.install(told, staging, job);
  job.phase("catch up");
  const AttachOutcome outcome = datastore_.start_replicating(request, job);

  const std::string result = journal_result(job, attached(outcome, resumed, upkeep_.status()));
  job.phase("tidy");
  installation->accept();
  return result;
}

std::string Operations::stage_replication_snapshot(const StageParams& params, JobContext& job) {
  if (params.snapshot) check_datastore(*params.snapshot, settings_.datastore, "stage");
  job.phase("check");
  require_places_apart(settings_, job);
  upkeep_.tend();
  std::optional<Follower> follower;
  if (params.follow) {
    const std::string id = snapshot_id_of(store_, params.href);
    job.journal().record(kFollowStep, write_follow(follower_path(settings_.snapshot, id)));
    job.phase("follow");
    follower.emplace(store_, id, settings_.snapshot, throttle_, settings_.attach.follow_timeout, clock_, job);
    follower->wait();
  }
  ObjectStore& store = follower ? follower->store() : store_;
  SnapshotReader reader(store, params.href, settings_.snapshot, throttle_, job);
  const Manifest& manifest = reader.manifest();
  if (params.snapshot) check_same_snapshot(*params.snapshot, manifest, datastore_);
  const fs::path staging = upkeep_.make_staging(reader.kind(), job);
  require_space(staging, manifest.raw_bytes, tree_bytes(staging));
  job.phase("fetch");
  const std::uint64_t resumed = datastore_.receive(reader, staging, job);
  job.phase("keep");
  upkeep_.keep_staged(staging, reader.kind(), job);
  JsonWriter out;
  out.begin_object().member("snapshot_id", manifest.id).member("dir", staging.string());
  out.member("raw_bytes", manifest.raw_bytes).member("resumed_bytes", resumed).end_object();
  return journal_result(job, out.text());
}

std::string Operations::discard_staged_snapshot(const SnapshotMetadata& snapshot, JobContext& job) {
  check_datastore(snapshot, settings_.datastore, "discard");
  job.phase("discard");
  const std::uint64_t bytes = upkeep_.discard_staged(kind_of(snapshot), job);
  return journal_result(job, JsonWriter().begin_object().member("discarded_bytes", bytes).end_object().text());
}

std::string Operations::detach_replication_slave(const DetachRequest& request, JobContext& job) {
  job.phase("drain");
  upkeep_.tend();
  const DetachOutcome outcome = datastore_.stop_replicating(request, job);
  return journal_result(job, detached(outcome.last_applied, outcome.dropped_accounts, upkeep_.status()));
}

std::string Operations::delete_replication_snapshot(const std::string& href, JobContext& job) {
  const std::string id = snapshot_id_of(store_, href);
  job.phase("delete");
  const Deletion deletion = plan_deletion(store_, id, host_needs(settings_).address, job.stop_token());
  ObjectsStep step;
  step.snapshot_id = id;
  step.href = store_.href(id + '/' + std::string(kManifestName));
  step.token = deletion.token;
  step.found = deletion.found;
  job.journal().record(kObjectsStep, write_objects_step(step));
  const std::uint64_t objects = delete_snapshot(store_, deletion, job.stop_token());
  return journal_result(job, deleted(objects, deletion.found));
}

std::string Operations::cleanup_replication_source(const std::string& replication_user, JobContext& job) {
  job.phase("clean up");
  upkeep_.tend();
  upkeep_.release_source(replication_user, job);
  return journal_result(job, released(replication_user));
}

std::string Operations::verify_replication_snapshot(const std::string& href, JobContext& job) {
  job.phase("verify");
  const VerifyResult result = verify_snapshot(store_, href, settings_.snapshot, throttle_, job);
  JsonWriter out;
  out.begin_object().member("ok", true).member("segments", result.segments);
  out.member("raw_bytes", result.raw_bytes).member("stored_bytes", result.stored_bytes);
  out.member_or_null("encryption", result.encryption_key).end_object();
  return out.text();
}

std::string Operations::checksum_tables(const ChecksumParams& params, JobContext& job) {
  job.phase("checksum");
  OwnJson read_at;
  const std::vector<TableChecksum> sums =
      upkeep_.checksum_tables(params.tables, params.sample, params.at, read_at, job);
  JsonWriter out;
  out.begin_object().key("at").raw(read_at.text());
  out.key("tables").begin_array();
  for (const TableChecksum& sum : sums) {
    out.begin_object().member("table", sum.table).member("rows", sum.rows).member("digest", sum.digest).end_object();
  }
  out.end_array().end_object();
  return out.text();
}

std::string Operations::list_replication_snapshots() {
  JsonWriter out;
  out.begin_object().key("snapshots").begin_array();
  for (const SnapshotListing& listing : list_snapshots(store_, {})) {
    out.begin_object()
        .member("id", listing.id)
        .member("href", listing.href)
        .member("created", format_utc(listing.created_at));
    out.member("complete", listing.complete).member("bytes", listing.stored_bytes).end_object();
  }
  out.end_array().end_object();
  return out.text();
}

ReplicationStatus Operations::get_replication_status() {
  return upkeep_.status();
}

std::string Operations::get_info(const std::vector<std::string_view>& methods) {
  const ServerDescription server = datastore_.describe();
  JsonWriter out;
  out.begin_object().member("agent_version", GUESTAGENT_VERSION).member("protocol_version", kProtocolVersion);
  out.member("datastore", settings_.datastore);
  out.member_or_null("datastore_version",
                     server.datastore_version.empty() ? std::nullopt : std::optional(server.datastore_version));
  out.key("tools").begin_object();
  for (const auto& [name, version] : server.tools) out.member(name, version);
  out.end_object().key("methods").begin_array();
  for (const std::string_view method : methods) out.value(method);
  out.end_array();
  out.member("reachable", server.reachable);
  if (!server.reachable) out.member("unreachable_because", server.unreachable_because);
  out.key("host").begin_object().member("advertised_address", server.advertised_address);
  out.member("port", unsigned{server.port});
  server.own.write_members(out);
  out.member("has_user_data", server.has_user_data).member("data_bytes", server.data_bytes);
  out.member("volume_bytes", server.volume_bytes).member("free_bytes", server.free_bytes);
  out.end_object().key("staged").begin_array();
  for (const StagedCopy& staged : server.staged) {
    out.begin_object().member("dir", staged.dir.string()).member("bytes", staged.bytes).member("ready", staged.ready);
    out.member("last_added", format_utc(staged.last_added)).end_object();
  }
  out.end_array().end_object();
  return out.text();
}

std::string Operations::finished_result(Undertaking what, const Journal& journal) {
  const JsonDocument document = parse_json(journal.find(kFinishedStep)->data, "journal step finished");
  const JsonReader in(document, "finished", Code::internal);
  if (what == Undertaking::detach) {
    return detached(OwnJson::of(in.object("last_applied")), in.strings("dropped_accounts"), upkeep_.status());
  }
  if (what == Undertaking::demote) return demoted(in.strings("users"));
  return released(in.string("replication_user"));
}

Jobs::Recovery Operations::recover(const std::string& method, JobContext& job) {
  Jobs::Recovery recovery;
  const Method* known = find_method(method);  // a journal may be of another version's agent
  const Undertaking undertaking = known ? known->undertaking : Undertaking::other;
  try {
    recovery.what = upkeep_.recover(undertaking, job);
  } catch (const LeftBehind& e) {
    recovery.what = e.done();
    recovery.left = e.what();
  }
  try {
    remove_followed(job.journal());
  } catch (const Error& e) {
    recovery.left += (recovery.left.empty() ? "" : "; ") + std::string(e.what());
  }
  if (job.journal().find(kResultStep)) return recovery;
  if (job.journal().find(kFinishedStep)) {
    recovery.result = finished_result(undertaking, job.journal());
    return recovery;
  }
  const Journal::Step* objects = job.journal().find(kObjectsStep);
  if (!objects) return recovery;

  recover_objects(method, read_objects_step(objects->data), recovery);
  return recovery;
}

// Only where this job has stored, and only what is its own there.
void Operations::recover_objects(const std::string& method, const ObjectsStep& step, Jobs::Recovery& recovery) {
  const std::string& id = step.snapshot_id;
  if (!step.spill.empty()) remove_tree(step.spill);
  try {
    if (!step.href.empty() && store_.name_of(step.href) != id + '/' + std::string(kManifestName)) {
      throw Error(Code::failed_precondition,
                  "they are on another store than the configured one: configure that again (storage), or remove them "
                  "by an agent of that "
                  "store: guestagent --oneshot delete_replication_snapshot '{\"snapshot_href\": \"" +
                      step.href + "\"}'");
    }
    TimeLimit limit(kLeftoverPatience);
    const bool deletion = method == "delete_replication_snapshot";
    const Undone undone =
        deletion ? finish_deletion(store_, {id, step.token, host_needs(settings_).address, step.found}, limit.token())
                 : undo_snapshot(store_, step, limit.token());
    if (!recovery.what.empty()) recovery.what += ", ";
    if (undone.of_another) {
      recovery.what += "left snapshot " + id + " on the store as it is: it is of " + holder_of(*undone.of_another);
    } else {
      recovery.what += "removed the " + std::to_string(undone.objects) + " stored objects of snapshot " + id;
    }
    if (deletion) recovery.result = deleted(undone.objects, step.found);
  } catch (const Error& e) {
    recovery.left += (recovery.left.empty() ? "" : "; ") + std::string("stored objects of snapshot ") + id +
                     " are left: " + e.what();
  }
}

void Operations::cat(std::string_view href, ByteSink& out, JobContext& job) {
  job.phase("read");
  SnapshotReader reader(store_, href, settings_.snapshot, throttle_, job);
  std::vector<std::byte> buffer(std::size_t{256} << 10);
  while (const std::size_t n = reader.read(buffer)) out.write(Bytes(buffer.data(), n));
  out.finish();
}

void Operations::restore(std::string_view href, const fs::path& to, JobContext& job) {
  job.phase("fetch");
  SnapshotReader reader(store_, href, settings_.snapshot, throttle_, job);
  require_space(to, reader.manifest().raw_bytes, upkeep_.has_part(to) ? tree_bytes(to) : 0);
  datastore_.receive(reader, to, job);
}

}  // namespace guestagent

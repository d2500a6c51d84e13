#include "controller/cleaner.h"

#include "base/host_name.h"
#include "base/json.h"
#include "base/log.h"

namespace guestagent::controller {

SnapshotFacts read_snapshot(const std::string& metadata) {
  const JsonDocument document = parse_json(metadata, "the snapshot's metadata");
  const JsonReader in(document, "snapshot metadata", Code::internal);
  SnapshotFacts out;
  const JsonReader dataset = in.object("dataset");
  out.href = dataset.string("snapshot_href");
  out.dataset_size = dataset.opt_uint("dataset_size").value_or(0);
  out.account = in.object("replication_user").string("name");
  return out;
}

void check_master(const std::string& metadata) {
  const JsonDocument document = parse_json(metadata, "the snapshot's metadata");
  const JsonReader in(document, "snapshot metadata", Code::internal);
  HostName::require("snapshot metadata: master.host", in.object("master").string("host"));
}

bool Cleaner::attempt(const Cleanup& cleanup, std::stop_token stop, const std::function<bool()>& hurry) {
  try {
    if (cleanup.kind == "snapshot")
      return run_job(cleanup, "delete_replication_snapshot", "snapshot_href", stop, hurry);
    if (cleanup.kind == "account")
      return run_job(cleanup, "cleanup_replication_source", "replication_user", stop, hurry);
    if (cleanup.kind == "host") {
      provisioner_.remove(state_.instance(cleanup.instance_id), stop);
      state_.cleanup_done(cleanup.id);
      return true;
    }
    if (cleanup.kind == "writable" || cleanup.kind == "fence")
      return run_job(cleanup, "set_read_only", "", stop, hurry);
    return find_out(cleanup, stop);
  } catch (const Error& e) {
    if (stop.stop_requested()) throw;
    log_warning("cleaning up failed", {{"kind", cleanup.kind}, {"task", cleanup.task_id}, {"error", e.what()}});
    state_.cleanup_failed(cleanup.id, e.what(), true);
    return false;
  }
}

bool Cleaner::run_job(const Cleanup& cleanup, const std::string& method, const std::string& key, std::stop_token stop,
                      const std::function<bool()>& hurry) {
  Task task;
  task.id = cleanup.task_id;
  task.round = cleanup.round;
  RemoteJob job;
  job.address = state_.instance(cleanup.instance_id).address;
  job.method = method;
  job.job_id = task.job_id(cleanup.kind + "-" + std::to_string(cleanup.id) + "-" + std::to_string(cleanup.tries));
  JsonWriter params;
  params.begin_object();
  if (!key.empty()) params.member(key, cleanup.subject);
  if (cleanup.kind == "writable") params.member("read_only", false);
  if (cleanup.kind == "fence") params.member("read_only", true).member("force", true);
  job.params = params.end_object().text();
  const JobEnd end = runner_.run(
      job, [] { return false; }, [](const JobView&) {}, stop, hurry);
  if (end.how == JobEnd::How::succeeded ||
      (!key.empty() && end.how == JobEnd::How::failed && end.error.code == "NOT_FOUND")) {
    state_.cleanup_done(cleanup.id);
    return true;
  }
  state_.cleanup_failed(cleanup.id, end.error.message,
                        end.how == JobEnd::How::failed || end.how == JobEnd::How::cancelled);
  return false;
}

bool Cleaner::find_out(const Cleanup& cleanup, std::stop_token stop) {
  const auto end = runner_.find_out(state_.instance(cleanup.instance_id).address, cleanup.subject, stop);
  if (!end) return false;
  const bool succeeded = end->how == JobEnd::How::succeeded;
  if (cleanup.kind == "attach_job") {
    state_.lost_attach_resolved(cleanup, succeeded);
  } else if (cleanup.kind == "detach_job") {
    state_.lost_detach_resolved(cleanup, succeeded);
  } else {
    const SnapshotFacts facts = succeeded ? read_snapshot(end->result) : SnapshotFacts{};
    state_.lost_snapshot_resolved(cleanup, facts.href, facts.account);
  }
  return true;
}

}  // namespace guestagent::controller

#include "agent/methods.h"

#include <algorithm>

#include "agent/params.h"
#include "agent/status_json.h"
#include "base/text.h"

namespace guestagent {
namespace {

constexpr Millis kDefaultWait{60000};
constexpr Millis kLookForCaller{1000};
constexpr std::uint64_t kMostJobs = 100000;  // of one page
constexpr std::size_t kNameWidth = 30;

// Binds what `kRead` makes of the params to a method of Operations and its dry run.
template <auto kRead, auto kRun, auto kPlan>
PreparedJob job_of(Operations& operations, const JsonReader& params) {
  const auto read = [&] {
    if constexpr (std::is_invocable_v<decltype(kRead), const JsonReader&>)
      return kRead(params);
    else if constexpr (std::is_invocable_v<decltype(kRead), const JsonReader&, const Datastore&>)
      return kRead(params, operations.datastore());
    else
      return kRead(params, operations.datastore(), operations.datastore_name());
  };
  const auto request = std::make_shared<const decltype(read())>(read());
  return {[&operations, request](JobContext& job) { return (operations.*kRun)(*request, job); },
          [&operations, request] { return (operations.*kPlan)(*request); }};
}

std::string read_href(const JsonReader& params) {
  return read_name_param(params, "snapshot_href");
}
SnapshotMetadata read_snapshot(const JsonReader& params) {
  SnapshotMetadata read = read_metadata(params.object("snapshot").value(), params.path() + ".snapshot");
  if (!read.has_data) throw params.error("snapshot", "has no dataset: nothing of it is staged");
  return read;
}
std::string read_user(const JsonReader& params) {
  return read_name_param(params, "replication_user");
}

// A page are the last of those that began before a job that the caller knows.
std::string job_list(Jobs& jobs, const std::optional<std::string>& before, std::optional<std::uint64_t> limit) {
  std::vector<JobRecord> records = jobs.list();
  if (before) {
    const auto known =
        std::find_if(records.begin(), records.end(), [&](const auto& each) { return each.job_id == *before; });
    if (known == records.end()) jobs.get(*before);  // says that there is none
    records.erase(known, records.end());
  }
  const std::size_t skip = records.size() - std::min<std::uint64_t>(limit.value_or(records.size()), records.size());
  JsonWriter out;
  out.begin_object().key("jobs").begin_array();
  for (std::size_t i = skip; i < records.size(); ++i) out.raw(write_job(records[i], false));
  out.end_array();
  if (limit) out.member("more", skip > 0);
  out.end_object();
  return out.text();
}

std::string answer_snapshots(Operations& operations, Jobs&, const JsonReader&, const CallerGone&) {
  return operations.list_replication_snapshots();
}

std::string answer_status(Operations& operations, Jobs&, const JsonReader&, const CallerGone&) {
  return write_status(operations.get_replication_status());
}

std::string answer_position(Operations& operations, Jobs&, const JsonReader&, const CallerGone&) {
  return operations.get_replication_position();
}

std::string answer_info(Operations& operations, Jobs&, const JsonReader&, const CallerGone&) {
  return operations.get_info(method_names());
}

std::string answer_jobs(Operations&, Jobs& jobs, const JsonReader& params, const CallerGone&) {
  return job_list(jobs, params.opt_string("before"), params.opt_uint("limit", 1, kMostJobs));
}

std::string answer_job(Operations&, Jobs& jobs, const JsonReader& params, const CallerGone&) {
  return write_job(jobs.get(read_job_id(params)));
}

std::string answer_wait(Operations&, Jobs& jobs, const JsonReader& params, const CallerGone& gone) {
  const Millis timeout = read_seconds(params, "timeout_s").value_or(kDefaultWait);
  return write_job(wait_for_job(jobs, read_job_id(params), timeout, gone));
}

std::string answer_cancel(Operations&, Jobs& jobs, const JsonReader& params, const CallerGone&) {
  const std::string id = read_job_id(params);
  jobs.cancel(id);
  return write_job(jobs.get(id));
}

}  // namespace

JobRecord wait_for_job(Jobs& jobs, const std::string& id, Millis timeout, const CallerGone& gone) {
  if (!gone) return jobs.wait(id, timeout);
  const SteadyTime began = std::chrono::steady_clock::now();
  for (;;) {
    const SteadyTime now = std::chrono::steady_clock::now();
    const Millis slice = std::min(kLookForCaller, timeout - std::chrono::floor<Millis>(now - began));
    JobRecord record = jobs.wait(id, std::max(slice, Millis(0)));
    const bool early = std::chrono::steady_clock::now() - now < slice;  // nothing will come of waiting
    if (record.ended() || slice < kLookForCaller || early || gone()) return record;
  }
}

const std::vector<Method>& methods() {
  using O = Operations;
  constexpr std::string_view kSnapshot = ": {...}", kOptSnapshot = "?: {...}";
  static const std::string kSlaveConfig = "?: {\"" + join(slave_config_members(attach_members()), "\", \"") + "\"}";
  static const std::vector<Method> kMethods = {
      {"get_replication_snapshot",
       MethodKind::changing,
       {{"snapshot_id", "?"}, {"compression", "?"}},
       "Takes a snapshot of the running server and stores it; the result is what an attach needs.",
       job_of<read_snapshot_params, &O::get_replication_snapshot, &O::plan_snapshot>,
       nullptr,
       Undertaking::snapshot},
      {"attach_replication_slave",
       MethodKind::changing,
       {{"snapshot", kSnapshot}, {"slave_config", kSlaveConfig}, {"catch_up_timeout_s", "?"}},
       "Makes this host a replica of the snapshot's source.",
       job_of<read_attach_params, &O::attach_replication_slave, &O::plan_attach>,
       nullptr,
       Undertaking::attach},
      {"stage_replication_snapshot",
       MethodKind::changing,
       {{"snapshot_href", "?"}, {"snapshot", kOptSnapshot}, {"follow", "?"}},
       "Fetches and prepares a snapshot beside the running data, for an attach that is short then.",
       job_of<read_stage_params, &O::stage_replication_snapshot, &O::plan_stage>,
       nullptr,
       Undertaking::stage},
      {"discard_staged_snapshot",
       MethodKind::changing,
       {{"snapshot", kSnapshot}},
       "Removes what this host has staged of a snapshot.",
       job_of<read_snapshot, &O::discard_staged_snapshot, &O::plan_discard>,
       nullptr,
       Undertaking::stage},
      {"detach_replication_slave",
       MethodKind::changing,
       {{"drain_timeout_s", "?"}, {"force", "?"}, {"start_applying", "?"}},
       "Applies all that was received, then lets the replica live on its own.",
       job_of<read_detach_params, &O::detach_replication_slave, &O::plan_detach>,
       nullptr,
       Undertaking::detach},
      {"delete_replication_snapshot",
       MethodKind::changing,
       {{"snapshot_href"}},
       "Removes a snapshot from the store.",
       job_of<read_href, &O::delete_replication_snapshot, &O::plan_delete>},
      {"verify_replication_snapshot",
       MethodKind::reading,
       {{"snapshot_href"}},
       "Reads every byte of a snapshot and holds it against the digests.",
       job_of<read_href, &O::verify_replication_snapshot, &O::plan_verify>},
      {"list_replication_snapshots", MethodKind::at_once, {}, "The store's snapshots.", nullptr, answer_snapshots},
      {"cleanup_replication_source",
       MethodKind::changing,
       {{"replication_user"}},
       "Removes a replication account that no replica uses any more.",
       job_of<read_user, &O::cleanup_replication_source, &O::plan_cleanup>,
       nullptr,
       Undertaking::release},
      {"set_read_only",
       MethodKind::changing,
       {{"read_only"}, {"timeout_s", "?"}, {"force", "?"}},
       "Refuses writes, or takes them again: now, and after the server's next start.",
       job_of<read_read_only_params, &O::set_read_only, &O::plan_read_only>,
       nullptr,
       Undertaking::read_only},
      {"open_replication_source",
       MethodKind::changing,
       {},
       "Makes an account for replicas that have the data already; the result is what an attach needs.",
       job_of<read_no_params, &O::open_replication_source, &O::plan_open_source>,
       nullptr,
       Undertaking::open_source},
      {"demote_replication_source",
       MethodKind::changing,
       {{"force", "?"}},
       "Removes what only a source has: the agent's replication accounts and their leases.",
       job_of<read_demote_params, &O::demote_replication_source, &O::plan_demote>,
       nullptr,
       Undertaking::demote},
      {"wait_for_position",
       MethodKind::waiting,
       {{"position"}, {"timeout_s", "?"}},
       "Ends when the server has applied a position of its set.",
       job_of<read_wait_params, &O::wait_for_position, &O::plan_wait>},
      {"get_replication_position",
       MethodKind::at_once,
       {},
       "What this server has executed, and what it has received and applied of its source.",
       nullptr,
       answer_position},
      {"get_replication_status",
       MethodKind::at_once,
       {},
       "This server's role, and whether its replication is well.",
       nullptr,
       answer_status},
      {"checksum_tables",
       MethodKind::reading,
       {{"tables", "?"}, {"sample", "?"}, {"at", "?"}},
       "Checksums of the tables at one position, to compare with another server's.",
       job_of<read_checksum_params, &O::checksum_tables, &O::plan_checksum>},
      {"get_info", MethodKind::at_once, {}, "The agent's version, server, store and methods.", nullptr, answer_info},
      {"list_jobs",
       MethodKind::at_once,
       {{"limit", "?"}, {"before", "?"}},
       "The jobs on record, without their results.",
       nullptr,
       answer_jobs},
      {"get_job", MethodKind::at_once, {{"job_id"}}, "A job's state, progress and result.", nullptr, answer_job},
      {"wait_job",
       MethodKind::at_once,
       {{"job_id"}, {"timeout_s", "?"}},
       "The same when the job has ended, or after a while.",
       nullptr,
       answer_wait},
      {"cancel_job", MethodKind::at_once, {{"job_id"}}, "Asks a job to end, and undoes it.", nullptr, answer_cancel},
  };
  return kMethods;
}

std::vector<std::string_view> method_names() {
  std::vector<std::string_view> names;
  for (const Method& method : methods()) names.push_back(method.name);
  return names;
}

const Method* find_method(std::string_view name) {
  for (const Method& method : methods()) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

std::string methods_text() {
  std::string out;
  for (const Method& method : methods()) {
    std::string line(method.name);
    if (!method.params.empty()) line.resize(std::max(kNameWidth, line.size() + 1), ' ');
    std::string_view before = "{";
    for (const MethodParam& param : method.params) {
      line += std::string(before) + "\"" + std::string(param.name) + "\"" + std::string(param.form);
      before = ", ";
    }
    out += line + (method.params.empty() ? "" : "}") + "\n    " + std::string(method.help) + "\n";
  }
  return out;
}

}  // namespace guestagent

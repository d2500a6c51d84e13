#include "agent/dispatcher.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>

#include "agent/params.h"
#include "agent/plans.h"
#include "base/log.h"
#include "base/text.h"

namespace guestagent {
namespace {

constexpr int kParseError = -32700;
constexpr double kExactNumber = 9007199254740992.0;  // 2^53: whole numbers below it are exact as floating point
constexpr int kInvalidRequest = -32600;
constexpr std::uint64_t kMostJobs = 100000;  // of one page
constexpr Millis kDefaultWait{60000};
constexpr Millis kLookForCaller{1000};
constexpr std::array<std::string_view, 3> kJobParams = {"async", "dry_run", "job_id"};

enum class How { changing, reading, at_once };

// What a call of a job's method comes to, once its params were read.
struct Prepared {
  Jobs::Work work;
  std::function<Plan()> plan;
};

struct Method {
  std::string_view name;
  How how;
  std::vector<std::string_view> params;
  std::function<Prepared(const JsonReader&)> prepare;                                  // changing, reading
  std::function<std::string(const JsonReader&, const Dispatcher::Gone&)> answer = {};  // at_once
};

// Binds what `read` made of the params to a method of Operations and its dry run.
template <typename P>
std::function<Prepared(const JsonReader&)> job_of(Operations& operations, P (*read)(const JsonReader&),
                                                  std::string (Operations::*run)(const P&, JobContext&),
                                                  Plan (Operations::*plan)(const P&)) {
  return [&operations, read, run, plan](const JsonReader& params) {
    const auto request = std::make_shared<const P>(read(params));
    return Prepared{[&operations, run, request](JobContext& job) { return (operations.*run)(*request, job); },
                    [&operations, plan, request] { return (operations.*plan)(*request); }};
  };
}

std::string read_href(const JsonReader& params) {
  return read_name_param(params, "snapshot_href");
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

// Jobs::wait, which ends also when nobody waits for the answer any more: whoever hangs up in a long job
// leaves no thread behind.
JobRecord wait_for_job(Jobs& jobs, const std::string& id, Millis timeout, const Dispatcher::Gone& gone) {
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

std::string response(std::string_view member, std::string_view value, std::string_view id) {
  return "{\"jsonrpc\":\"2.0\",\"id\":" + std::string(id) + ",\"" + std::string(member) + "\":" + std::string(value) +
         "}";
}

std::string refuse(int number, const std::string& why, std::string_view id = "null") {
  const Error error(Code::invalid_argument, why,
                    R"(send {"jsonrpc": "2.0", "id": 1, "method": "get_info", "params": {}})");
  return response("error", write_rpc_error(error, number), id);
}

}  // namespace

struct Dispatcher::State {
  Operations& operations;
  Jobs& jobs;
  const bool allow_async;
  std::vector<Method> table;
  mutable std::mutex mutex;
  std::map<std::pair<std::string, std::string>, std::uint64_t> counts;  // guarded by mutex

  void count(const std::string& method, std::string_view code);
  const Method& find(const std::string& name) const;
  std::vector<std::string_view> names() const;
  std::string call(const std::string& name, const JsonValue& params, const Gone& gone);
  std::string run_job(const Method& method, const JsonReader& params, const Gone& gone);
  std::string handle_one(const JsonValue& request, const Gone& gone);
};

Dispatcher::Dispatcher(Operations& operations, Jobs& jobs, bool allow_async)
    : state_(new State{operations, jobs, allow_async, {}, {}, {}}) {
  using O = Operations;
  state_->table = {
      {"get_replication_snapshot",
       How::changing,
       {"snapshot_id", "compression"},
       job_of(operations, read_snapshot_params, &O::get_replication_snapshot, &O::plan_snapshot)},
      {"attach_replication_slave",
       How::changing,
       {"snapshot", "slave_config", "catch_up_timeout_s"},
       job_of(operations, read_attach_params, &O::attach_replication_slave, &O::plan_attach)},
      {"detach_replication_slave",
       How::changing,
       {"drain_timeout_s", "force"},
       job_of(operations, read_detach_params, &O::detach_replication_slave, &O::plan_detach)},
      {"delete_replication_snapshot",
       How::changing,
       {"snapshot_href"},
       job_of(operations, read_href, &O::delete_replication_snapshot, &O::plan_delete)},
      {"verify_replication_snapshot",
       How::reading,
       {"snapshot_href"},
       job_of(operations, read_href, &O::verify_replication_snapshot, &O::plan_verify)},
      {"list_replication_snapshots",
       How::at_once,
       {},
       {},
       [&operations](const JsonReader&, const Gone&) { return operations.list_replication_snapshots(); }},
      {"cleanup_replication_source",
       How::changing,
       {"replication_user"},
       job_of(operations, read_user, &O::cleanup_replication_source, &O::plan_cleanup)},
      {"get_replication_status",
       How::at_once,
       {},
       {},
       [&operations](const JsonReader&, const Gone&) { return operations.get_replication_status(); }},
      {"checksum_tables",
       How::reading,
       {"tables", "sample", "at"},
       job_of(operations, read_checksum_params, &O::checksum_tables, &O::plan_checksum)},
      {"get_info",
       How::at_once,
       {},
       {},
       [this, &operations](const JsonReader&, const Gone&) { return operations.get_info(methods()); }},
      {"list_jobs",
       How::at_once,
       {"limit", "before"},
       {},
       [&jobs](const JsonReader& params, const Gone&) {
         return job_list(jobs, params.opt_string("before"), params.opt_uint("limit", 1, kMostJobs));
       }},
      {"get_job",
       How::at_once,
       {"job_id"},
       {},
       [&jobs](const JsonReader& params, const Gone&) { return write_job(jobs.get(read_job_id(params))); }},
      {"wait_job",
       How::at_once,
       {"job_id", "timeout_s"},
       {},
       [&jobs](const JsonReader& params, const Gone& gone) {
         const Millis timeout = read_seconds(params, "timeout_s").value_or(kDefaultWait);
         return write_job(wait_for_job(jobs, read_job_id(params), timeout, gone));
       }},
      {"cancel_job",
       How::at_once,
       {"job_id"},
       {},
       [&jobs](const JsonReader& params, const Gone&) {
         const std::string id = read_job_id(params);
         jobs.cancel(id);
         return write_job(jobs.get(id));
       }},
  };
}

Dispatcher::~Dispatcher() = default;

std::vector<std::string_view> Dispatcher::State::names() const {
  std::vector<std::string_view> names;
  for (const Method& method : table) names.push_back(method.name);
  return names;
}

void Dispatcher::State::count(const std::string& method, std::string_view code) {
  const bool known = std::any_of(table.begin(), table.end(), [&](const Method& row) { return row.name == method; });
  const std::lock_guard lock(mutex);
  ++counts[{known ? method : "", std::string(code)}];
}

const Method& Dispatcher::State::find(const std::string& name) const {
  for (const Method& method : table) {
    if (method.name == name) return method;
  }
  const std::string_view meant = nearest(name, names());
  throw Error(Code::unimplemented, "call " + printable(name) + ": there is no such method",
              (meant.empty() ? "" : "did you mean " + std::string(meant) + "? ") + "the methods are: " + join(names()));
}

std::string Dispatcher::State::call(const std::string& name, const JsonValue& params, const Gone& gone) {
  const Method& method = find(name);
  if (params.IsArray()) throw Error(Code::invalid_argument, "params: must be an object: params go by name");
  const JsonReader reader(params, "params");
  std::vector<std::string_view> known = method.params;
  if (method.how != How::at_once) known.insert(known.end(), kJobParams.begin(), kJobParams.end());
  allow_only(reader, known);
  return method.how == How::at_once ? method.answer(reader, gone) : run_job(method, reader, gone);
}

std::string Dispatcher::State::run_job(const Method& method, const JsonReader& params, const Gone& gone) {
  const JobParams common = read_job_params(params);
  Prepared prepared = method.prepare(params);
  if (common.async && !allow_async) {
    throw Error(Code::invalid_argument, "params.async: not with --oneshot: the process ends with its answer",
                "leave it out, or ask the daemon: guestagent call");
  }
  if (common.dry_run) return write_plan(prepared.plan());

  const JobKind kind = method.how == How::changing ? JobKind::changing : JobKind::reading;
  const std::string id = jobs.start(std::string(method.name), kind, common.job_id, params_digest(params.value()),
                                    std::move(prepared.work));
  if (common.async) {
    JsonWriter out;
    out.begin_object().member("job_id", id).end_object();
    return out.text();
  }
  const JobRecord record = wait_for_job(jobs, id, Millis::max(), gone);
  if (record.state == "succeeded" && record.result) return *record.result;
  if (record.error) throw JobError(read_rpc_error(*record.error), id);
  throw JobError(Error(Code::unavailable,
                       std::string(method.name) + ": job " + id + " is " + record.state +
                           " in a process that cannot be waited for",
                       "ask again with get_job"),
                 id);
}

std::string Dispatcher::State::handle_one(const JsonValue& request, const Gone& gone) {
  if (!request.IsObject()) return refuse(kInvalidRequest, "the request: must be an object");
  const auto id_member = request.FindMember("id");
  const bool notification = id_member == request.MemberEnd();
  std::string id = "null";
  if (!notification) {
    const JsonValue& value = id_member->value;
    // A larger one would come back as another number.
    const bool exact =
        value.IsInt64() || value.IsUint64() || (value.IsDouble() && std::abs(value.GetDouble()) < kExactNumber);
    if (!value.IsString() && !exact && !value.IsNull()) {
      return refuse(kInvalidRequest, "id: must be a string, a number of at most 64 bits or null");
    }
    id = to_json(value);
  }
  const auto version = request.FindMember("jsonrpc");
  if (version == request.MemberEnd() || !version->value.IsString() || version->value != "2.0") {
    return refuse(kInvalidRequest, "jsonrpc: must be \"2.0\"", id);
  }
  const auto method = request.FindMember("method");
  if (method == request.MemberEnd() || !method->value.IsString()) {
    return refuse(kInvalidRequest, "method: must be a string", id);
  }
  const auto params = request.FindMember("params");
  const JsonValue none(rapidjson::kObjectType);
  const bool given = params != request.MemberEnd() && !params->value.IsNull();
  const std::string name(method->value.GetString(), method->value.GetStringLength());
  std::string answer;
  try {
    answer = response("result", call(name, given ? params->value : none, gone), id);
    count(name, "OK");
  } catch (const JobError& e) {  // the job has logged it
    count(name, code_row(e.code()).wire);
    answer = response("error", write_rpc_error(e, e.job_id()), id);
  } catch (const std::exception& e) {
    const Error error = to_error(e);
    count(name, code_row(error.code()).wire);
    log_warning(
        "call refused",
        {{"method", printable(name)}, {"code", std::string(code_row(error.code()).wire)}, {"error", error.what()}});
    answer = response("error", write_rpc_error(error), id);
  }
  return notification ? "" : answer;
}

std::string Dispatcher::handle(std::string_view request, const Gone& gone) {
  try {
    JsonDocument document;
    try {
      document = parse_json(request, "request");
    } catch (const Error& e) {
      return refuse(kParseError, e.what());
    }
    if (!document.IsArray()) return state_->handle_one(document, gone);
    if (document.Empty()) return refuse(kInvalidRequest, "the batch: is empty");
    if (document.Size() > kMaxBatch) {
      return refuse(kInvalidRequest, "the batch: at most " + std::to_string(kMaxBatch) + " requests at a time");
    }
    std::string answers;
    for (const JsonValue& one : document.GetArray()) {
      const std::string answer = state_->handle_one(one, gone);
      if (!answer.empty()) answers += (answers.empty() ? "" : ",") + answer;
    }
    return answers.empty() ? "" : "[" + answers + "]";
  } catch (const std::exception& e) {
    const Error error = to_error(e);
    log_error("request failed", {{"error", error.what()}});
    return response("error", write_rpc_error(error), "null");
  }
}

std::string Dispatcher::call(const std::string& method, std::string_view params_json) {
  const JsonDocument params = parse_json(params_json, "params");
  return state_->call(method, params, {});
}

std::vector<std::string_view> Dispatcher::methods() const {
  return state_->names();
}

std::map<std::pair<std::string, std::string>, std::uint64_t> Dispatcher::counts() const {
  const std::lock_guard lock(state_->mutex);
  return state_->counts;
}

bool runs_as_job(std::string_view method) {
  constexpr std::array<std::string_view, 7> kJobs = {"get_replication_snapshot",
                                                     "attach_replication_slave",
                                                     "detach_replication_slave",
                                                     "delete_replication_snapshot",
                                                     "cleanup_replication_source",
                                                     "verify_replication_snapshot",
                                                     "checksum_tables"};
  return std::find(kJobs.begin(), kJobs.end(), method) != kJobs.end();
}

}  // namespace guestagent

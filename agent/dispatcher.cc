#include "agent/dispatcher.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>

#include "agent/methods.h"
#include "agent/params.h"
#include "agent/plans.h"
#include "base/log.h"
#include "base/text.h"

namespace guestagent {
namespace {

constexpr int kParseError = -32700;
constexpr double kExactNumber = 9007199254740992.0;  // 2^53: whole numbers below it are exact as floating point
constexpr int kInvalidRequest = -32600;
constexpr std::array<std::string_view, 3> kJobParams = {"async", "dry_run", "job_id"};

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
  mutable std::mutex mutex;
  std::map<std::pair<std::string, std::string>, std::uint64_t> counts;  // guarded by mutex

  void count(const std::string& method, std::string_view code);
  const Method& find(const std::string& name) const;
  std::string call(const std::string& name, const JsonValue& params, const Gone& gone);
  std::string run_job(const Method& method, const JsonReader& params, const Gone& gone);
  std::string handle_one(const JsonValue& request, const Gone& gone);
};

Dispatcher::Dispatcher(Operations& operations, Jobs& jobs, bool allow_async)
    : state_(new State{operations, jobs, allow_async, {}, {}}) {}

Dispatcher::~Dispatcher() = default;

void Dispatcher::State::count(const std::string& method, std::string_view code) {
  const std::lock_guard lock(mutex);
  ++counts[{find_method(method) != nullptr ? method : "", std::string(code)}];
}

const Method& Dispatcher::State::find(const std::string& name) const {
  if (const Method* method = find_method(name)) return *method;
  const std::string_view meant = nearest(name, method_names());
  throw Error(
      Code::unimplemented, "call " + printable(name) + ": there is no such method",
      (meant.empty() ? "" : "did you mean " + std::string(meant) + "? ") + "the methods are: " + join(method_names()));
}

std::string Dispatcher::State::call(const std::string& name, const JsonValue& params, const Gone& gone) {
  const Method& method = find(name);
  if (params.IsArray()) throw Error(Code::invalid_argument, "params: must be an object: params go by name");
  const JsonReader reader(params, "params");
  std::vector<std::string_view> known;
  for (const MethodParam& param : method.params) known.push_back(param.name);
  if (method.is_job()) known.insert(known.end(), kJobParams.begin(), kJobParams.end());
  allow_only(reader, known);
  return method.is_job() ? run_job(method, reader, gone) : method.answer(operations, jobs, reader, gone);
}

std::string Dispatcher::State::run_job(const Method& method, const JsonReader& params, const Gone& gone) {
  const JobParams common = read_job_params(params);
  PreparedJob prepared = method.prepare(operations, params);
  if (common.async && !allow_async) {
    throw Error(Code::invalid_argument, "params.async: not with --oneshot: the process ends with its answer",
                "leave it out, or ask the daemon: guestagent call");
  }
  if (common.dry_run) return write_plan(prepared.plan());

  const JobKind kind = method.kind == MethodKind::changing  ? JobKind::changing
                       : method.kind == MethodKind::waiting ? JobKind::waiting
                                                            : JobKind::reading;
  const std::string id = jobs.start(std::string(method.name), kind, common.job_id, params_digest(params.value()),
                                    std::move(prepared.work));
  if (common.async) {
    JsonWriter out;
    out.begin_object().member("job_id", id).end_object();
    return out.text();
  }
  const JobRecord record = wait_for_job(jobs, id, Millis::max(), gone);
  if (record.state == JobState::succeeded && record.result) return *record.result;
  if (record.error) throw JobError(read_rpc_error(*record.error), id);
  throw JobError(Error(Code::unavailable,
                       std::string(method.name) + ": job " + id + " is " + to_string(record.state) +
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
  return method_names();
}

std::map<std::pair<std::string, std::string>, std::uint64_t> Dispatcher::counts() const {
  const std::lock_guard lock(state_->mutex);
  return state_->counts;
}

bool runs_as_job(std::string_view name) {
  const Method* method = find_method(name);
  return method != nullptr && method->is_job();
}

}  // namespace guestagent

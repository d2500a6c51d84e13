#include "agent/client.h"

#include "agent/jobs.h"
#include "agent/rpc_error.h"
#include "base/json.h"

namespace guestagent {
namespace {

constexpr std::uint64_t kMaxAnswerBytes = std::uint64_t{64} << 20;

const char* const kNobody =
    "is the daemon running? (systemctl status guestagent); without one: guestagent --oneshot METHOD";

HttpClientOptions options() {
  HttpClientOptions out;
  out.stall = Millis(0);  // a job may take a day
  out.kept = 0;           // the daemon may be another one by the next call
  return out;
}

JobRecord read_event(const std::string& data) {
  const JsonDocument document = parse_json(data, "event");
  const JsonReader in(document, "event", Code::internal);
  JobRecord record;
  record.state = kJobStates.read(in, "state");
  record.phase = in.opt_string("phase").value_or("");
  record.progress.done_bytes = in.opt_uint("bytes").value_or(0);
  record.progress.total_bytes = in.opt_uint("total");
  record.progress.rate = in.opt_number("rate").value_or(0);
  record.progress.eta_s = in.opt_uint("eta");
  return record;
}

}  // namespace

Client::Client(fs::path socket) : socket_(std::move(socket)), http_(options()) {}

HttpRequest Client::request(const std::string& method, const std::string& path) const {
  HttpRequest out{.what = "ask the agent", .method = method, .url = "http://agent" + path};
  out.max_answer = kMaxAnswerBytes;
  out.socket = socket_;
  return out;
}

HttpResponse Client::send(const HttpRequest& request) {
  try {
    return http_.send(request, {});
  } catch (const HttpError& e) {
    if (e.code() != Code::unavailable) throw;
    throw Error(e.code(), e.what(), kNobody);
  }
}

std::string Client::call(const std::string& method, std::string_view params_json) {
  JsonWriter out;
  out.begin_object()
      .member("jsonrpc", "2.0")
      .member("id", 1)
      .member("method", method)
      .key("params")
      .raw(params_json)
      .end_object();
  const Buffer body = Buffer::from(out.text());
  HttpRequest asked = request("POST", "/rpc");
  asked.headers = {{"Content-Type", "application/json"}};
  asked.body = &body;
  const HttpResponse response = send(asked);
  const JsonDocument answer = parse_json(response.body.text(), "the agent's answer");
  if (!answer.IsObject()) throw Error(Code::internal, "the agent's answer: must be an object");
  const auto error = answer.FindMember("error");
  if (error != answer.MemberEnd()) {
    const JsonValue& value = error->value;
    const auto data = value.IsObject() ? value.FindMember("data") : JsonValue::ConstMemberIterator{};
    const bool of_job = value.IsObject() && data != value.MemberEnd() && data->value.IsObject() &&
                        data->value.HasMember("job_id") && data->value["job_id"].IsString();
    const Error told = read_rpc_error(to_json(value));
    if (of_job) throw JobError(told, data->value["job_id"].GetString());
    throw told;
  }
  const auto result = answer.FindMember("result");
  if (result == answer.MemberEnd()) {
    throw Error(Code::internal,
                "the agent's answer (HTTP " + std::to_string(response.status) + "): has neither result nor error");
  }
  return to_json(result->value);
}

void Client::follow(const std::string& job_id, const std::function<void(const JobRecord&)>& each) {
  HttpRequest asked = request("GET", "/jobs/" + job_id + "/events");
  bool begun = false;
  std::string have, event;
  asked.on_body = [&](Bytes data) {
    begun = true;
    have.append(reinterpret_cast<const char*>(data.data()), data.size());
    for (auto end = have.find('\n'); end != std::string::npos; end = have.find('\n')) {
      constexpr std::string_view kEvent = "event: ", kData = "data: ";
      const std::string line = have.substr(0, end);
      have.erase(0, end + 1);
      if (line.starts_with(kEvent)) event = line.substr(kEvent.size());
      if (line.starts_with(kData) && event == "progress") each(read_event(line.substr(kData.size())));
      if (line.starts_with(kData) && event == "end") return false;
    }
    if (have.size() > kMaxAnswerBytes) throw Error(Code::resource_exhausted, "ask the agent: the answer is too large");
    return true;
  };
  try {
    send(asked);
  } catch (const Error& e) {
    // A connection that broke while the job went on: the caller asks for the job itself.
    if (e.code() != Code::unavailable || !begun) throw;
  }
}

}  // namespace guestagent

#include "controller/agent_client.h"

#include "base/json.h"
#include "base/text.h"
#include "controller/agent_address.h"
#include "net/client_files.h"

namespace guestagent::controller {
namespace {

constexpr std::size_t kLongestWords = 4096;
constexpr std::uint64_t kMaxAnswerBytes = std::uint64_t{16} << 20;

HttpClientOptions options_of(const AgentAccessSettings& settings) {
  check_client_files(settings.ca_file, settings.certificate, settings.key);
  HttpClientOptions out;
  out.connect_timeout = settings.call_timeout;
  out.stall = Millis(0);  // the call's timeout is for all of it
  out.ca_file = settings.ca_file;
  out.certificate = settings.certificate;
  out.key = settings.key;
  out.socket_users = agent_users(settings);
  out.kept = 2;
  out.kept_for = Seconds(20);  // shorter than what agents grant
  out.transfer_buffer = 16 << 10;
  out.hints.ca = out.hints.certificate;
  out.hints.socket_user = "agents run as root; name the user of one that does not in agents.socket_users";
  return out;
}

// What an agent says of an error, lenient: another version may say less.
Error rpc_error(const JsonValue& value) {
  const JsonReader error(value, "error", Code::internal);
  Code code = Code::internal;
  std::string hint;
  if (const auto data = error.opt_object("data")) {
    code = code_from_wire(data->opt_string("code").value_or(""));
    hint = data->opt_string("hint").value_or("");
  }
  return Error(code, error.opt_string("message").value_or("an error without a message").substr(0, kLongestWords),
               hint.substr(0, kLongestWords));
}

std::string request_text(std::string_view method, std::string_view params) {
  JsonWriter out;
  out.begin_object()
      .member("jsonrpc", "2.0")
      .member("id", 1)
      .member("method", method)
      .key("params")
      .raw(params)
      .end_object();
  return out.text();
}

}  // namespace

AgentClient::AgentClient(const AgentAccessSettings& settings) : settings_(settings), http_(options_of(settings)) {}

std::string AgentClient::call(const std::string& address, std::string_view method, std::string_view params,
                              std::stop_token stop) {
  const std::string doing = "calling " + std::string(method) + " of the agent at " + address;
  const auto silent = [&](const std::string& why, const std::string& hint = {}) {
    return NoAnswer(Error(Code::unavailable, doing + ": " + why, hint));
  };
  const HttpAddress where = with_context(doing, [&] { return agent_address(address, settings_); });
  HttpRequest request = where.request("calling " + std::string(method) + " of the agent", "POST", "/rpc");
  const Buffer body = Buffer::from(request_text(method, params));
  request.headers = {{"Content-Type", "application/json"}, {"User-Agent", "guestagent-controller"}};
  request.body = &body;
  request.max_answer = kMaxAnswerBytes;
  request.timeout = settings_.call_timeout;
  HttpResponse answer;
  try {
    answer = http_.send(request, stop);
  } catch (const HttpError& e) {
    if (e.code() == Code::unavailable || e.code() == Code::deadline_exceeded) throw NoAnswer(e);
    throw;
  }
  if (answer.status == 429 || answer.status == 503) throw silent("it answers " + std::to_string(answer.status));
  if (answer.status == 401 || answer.status == 403) {
    throw Error(Code::permission_denied, doing + ": it answers " + std::to_string(answer.status),
                "let the agent know the controller: agent.allow_users, or agent.listen.allow_names");
  }
  JsonDocument document;
  try {
    document = parse_json(answer.body.text(), "its answer");
  } catch (const Error&) {
    throw Error(Code::internal, doing + ": HTTP status " + std::to_string(answer.status) + ", and no JSON",
                "is there an agent of guestagent at that address?");
  }
  const JsonReader reply(document, "answer", Code::internal);
  if (document.HasMember("error") && document["error"].IsObject()) throw rpc_error(document["error"]);
  if (!document.HasMember("result")) {
    throw Error(Code::internal, doing + ": its answer has neither a result nor an error",
                "is there an agent of guestagent at that address?");
  }
  return to_json(document["result"]);
}

}  // namespace guestagent::controller

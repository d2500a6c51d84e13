#include "agent/client.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "agent/jobs.h"
#include "agent/rpc_error.h"
#include "base/json.h"
#include "base/text.h"
#include "base/unique_fd.h"

namespace guestagent {
namespace {

constexpr std::size_t kMaxAnswerBytes = std::size_t{64} << 20;

// One request and its answer, on a connection of its own that the server closes.
class Exchange {
 public:
  Exchange(const fs::path& socket, const std::string& request) : doing_("ask the agent at " + socket.string()) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (socket.native().size() >= sizeof address.sun_path)
      throw Error(Code::invalid_argument, doing_ + ": the path is too long");
    std::memcpy(address.sun_path, socket.c_str(), socket.native().size() + 1);
    fd_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd_) throw system_error(doing_, errno);
    if (::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      if (errno != ENOENT && errno != ECONNREFUSED) throw system_error(doing_, errno);
      throw Error(Code::unavailable, doing_ + ": " + std::strerror(errno),
                  "is the daemon running? (systemctl status guestagent); without one: guestagent --oneshot METHOD");
    }
    for (std::string_view rest = request; !rest.empty();) {
      const ssize_t n = ::send(fd_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) break;  // the answer says why
      rest.remove_prefix(static_cast<std::size_t>(n));
    }
    read_head();
  }

  unsigned status() const { return status_; }

  // A line without its end, or false at the end of the answer.
  bool line(std::string& into) {
    std::size_t end;
    while ((end = have_.find('\n')) == std::string::npos) {
      if (!more()) return false;
    }
    into = have_.substr(0, end > 0 && have_[end - 1] == '\r' ? end - 1 : end);
    have_.erase(0, end + 1);
    return true;
  }

  std::string rest() {
    while (more()) {
    }
    return std::move(have_);
  }

 private:
  void read_head() {
    std::string text;
    const auto broken = [&] {
      return Error(Code::unavailable, doing_ + ": it closed the connection without an answer", "look at its log");
    };
    if (!line(text) || text.size() < 12 || !text.starts_with("HTTP/1.1 ")) throw broken();
    status_ = static_cast<unsigned>(std::strtoul(text.c_str() + 9, nullptr, 10));
    while (!text.empty()) {
      if (!line(text)) throw broken();
    }
  }

  bool more() {
    char buffer[16384];
    ssize_t n;
    while ((n = ::recv(fd_.get(), buffer, sizeof buffer, 0)) < 0 && errno == EINTR) {
    }
    if (n <= 0) return false;
    have_.append(buffer, static_cast<std::size_t>(n));
    if (have_.size() > kMaxAnswerBytes) throw Error(Code::resource_exhausted, doing_ + ": the answer is too large");
    return true;
  }

  std::string doing_;
  UniqueFd fd_;
  std::string have_;
  unsigned status_ = 0;
};

JobRecord read_event(const std::string& data) {
  const JsonDocument document = parse_json(data, "event");
  const JsonReader in(document, "event", Code::internal);
  JobRecord record;
  record.state = in.opt_string("state").value_or("running");
  record.phase = in.opt_string("phase").value_or("");
  record.progress.done_bytes = in.opt_uint("bytes").value_or(0);
  record.progress.total_bytes = in.opt_uint("total");
  record.progress.rate = in.opt_number("rate").value_or(0);
  record.progress.eta_s = in.opt_uint("eta");
  return record;
}

}  // namespace

std::string Client::call(const std::string& method, std::string_view params_json) {
  JsonWriter out;
  out.begin_object()
      .member("jsonrpc", "2.0")
      .member("id", 1)
      .member("method", method)
      .key("params")
      .raw(params_json)
      .end_object();
  const std::string body = out.text();
  Exchange exchange(socket_,
                    "POST /rpc HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Type: "
                    "application/json\r\nContent-Length: " +
                        std::to_string(body.size()) + "\r\n\r\n" + body);
  const std::string text = exchange.rest();
  const JsonDocument answer = parse_json(text, "the agent's answer");
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
                "the agent's answer (HTTP " + std::to_string(exchange.status()) + "): has neither result nor error");
  }
  return to_json(result->value);
}

void Client::follow(const std::string& job_id, const std::function<void(const JobRecord&)>& each) {
  Exchange exchange(socket_, "GET /jobs/" + job_id + "/events HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
  if (exchange.status() != 200) return;
  std::string text, event;
  while (exchange.line(text)) {
    constexpr std::string_view kEvent = "event: ", kData = "data: ";
    if (text.starts_with(kEvent)) event = text.substr(kEvent.size());
    if (text.starts_with(kData) && event == "progress") each(read_event(text.substr(kData.size())));
    if (text.starts_with(kData) && event == "end") return;
  }
}

}  // namespace guestagent

// An HTTP peer on the loopback that does what a test tells it: answers, lies, stalls, resets. Real sockets,
// so that a client is tested with all its layers.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace guestagent {

struct PeerRequest {
  std::string method;
  std::string target;                          // "/v1/AUTH_test/c/o?format=json", as it came
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // empty until it has been read

  std::string path() const { return target.substr(0, target.find('?')); }
  std::string query() const { return target.find('?') == std::string::npos ? "" : target.substr(target.find('?') + 1); }
};

struct PeerAnswer {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers = {};  // Content-Length is added unless it is among them
  std::string body = {};
  bool no_length = false;  // no Content-Length either: the end of the connection is the end of the body
};

// What happens to one request instead of its answer.
enum class PeerFault {
  none,
  reset_in_body,     // RST when a part of the body has come (of a request without one: when its head has)
  reset_after_body,  // RST when all has come and been acted on, before the answer
  close,             // an orderly end there instead
  stall,             // silence, without and with a started answer
  stall_in_answer,
  truncate,         // the answer without its last byte (without a body: half of its head), then the end
  garbage_headers,  // bytes that are no HTTP
  endless_headers,
  endless_body,  // no length, and it never ends
  no_expect,  // 417 for a request that asks for leave to send its body, with an end of the connection; none of another
  no_expect_late,  // the same, when the body has come
};

struct PeerPlan {
  PeerFault fault = PeerFault::none;
  std::optional<PeerAnswer> instead = {};           // this answer, and the request is not acted on
  std::function<void(PeerAnswer&)> edit = nullptr;  // of the answer to a request that was acted on
};

// Thread-safe. One thread a connection; all are gone when it dies.
class ScriptedHttp {
 public:
  using Answer = std::function<PeerAnswer(const PeerRequest&)>;
  // Called when the head of a request has come.
  using Script = std::function<PeerPlan(const PeerRequest&)>;

  explicit ScriptedHttp(Answer answer);
  ~ScriptedHttp();

  int port() const;
  std::string url() const;  // "http://127.0.0.1:PORT"
  // For requests from now on; nothing is wrong until it is set.
  void set_script(Script script);

  // Refuses connections from now on and ends those there are; listens again on the same port.
  void close_port();
  void open_port();

  // "PUT /v1/…" of each request whose head came, in order.
  std::vector<std::string> seen() const;
  unsigned connections() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent

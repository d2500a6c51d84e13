// What comes to the server: whatever the bytes, whole answers come back or none, the connection ends, and the handler
// sees only requests within the limits. The client's side, answers of others: fuzz_http.cc.
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "base/log.h"
#include "net/http_server.h"

namespace {

using namespace guestagent;

void check(bool fact) {
  if (!fact) std::abort();
}

HttpReply answer_request(const ReceivedRequest& request) {
  check(request.local() && request.caller.proven() && !request.method.empty());
  check(request.body.size() <= 1024 && request.path.size() <= 4096);
  request.query_value("a");
  HttpReply reply{200, "text/plain", request.path};
  if (request.method != "POST" || request.path != "/events") return reply;
  reply.next = [told = std::make_shared<int>(0)]() -> std::optional<std::string> {
    return (*told)++ == 0 ? std::optional<std::string>("data: 1\n\n") : std::nullopt;
  };
  return reply;
}

struct Serving {
  TempDir dir{fs::temp_directory_path(), "fuzz-request-"};
  HttpServer server{settings(), answer_request, [](HttpFault, const std::string& why) {
                      return HttpReply{400, "text/plain", why};
                    }};
  Serving() { server.start(); }
  HttpServerSettings settings() const {
    log_setup(LogLevel::error, LogFormat::logfmt);
    HttpServerSettings out;
    out.local = {"fuzz", dir.path() / "socket", 0600, {}, {}};
    out.limits.head_bytes = 4096;
    out.limits.body_bytes = 1024;
    return out;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Serving serving;
  if (size > 65536) return 0;  // so that none of it waits for the other end to read
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, (serving.dir.path() / "socket").c_str(), sizeof address.sun_path - 1);
  check(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  const timeval patience{20, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (size > 0) static_cast<void>(::send(fd.get(), data, size, MSG_NOSIGNAL));
  ::shutdown(fd.get(), SHUT_WR);
  std::string answers;
  char some[4096];
  ssize_t got = 0;
  while ((got = ::recv(fd.get(), some, sizeof some, 0)) > 0) answers.append(some, static_cast<std::size_t>(got));
  check(got == 0 || errno == ECONNRESET);  // it has ended, in time
  check(answers.empty() || answers.starts_with("HTTP/1."));
  return 0;
}

// One HTTP/1.1 request at a time over a Unix socket, TCP or TLS. Boost.Beast is confined to http_client.cc
// and http_server.cc.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"

namespace guestagent::controller {

// "unix:/run/guestagent/agent.sock", "https://host:port", "http://host:port" (IPv6 in brackets).
struct HttpAddress {
  enum class Kind { unix_socket, tcp, tls } kind = Kind::tcp;
  std::string path;  // of the socket
  std::string host, port;

  // Throws invalid_argument, naming the address. http:// is for this host only: a loopback address or exactly
  // "localhost".
  static HttpAddress parse(std::string_view text);
  std::string host_header() const;
};

struct HttpClientTls {
  fs::path ca_file = {};                // empty: the system's
  fs::path certificate = {}, key = {};  // empty: none shown
};

// The addresses of a host, as numbers. Throws Error; may take as long as it likes.
using Resolver = std::function<std::vector<std::string>(const std::string& host)>;
std::vector<std::string> resolve_by_system(const std::string& host);

struct HttpClientOptions {
  // Whose process must serve a Unix socket that is connected to; nullopt: anybody's.
  std::optional<std::vector<uid_t>> socket_users = std::nullopt;
  Resolver resolver = resolve_by_system;
};

struct HttpExchange {
  std::string method = "POST", target = "/", body = {};
  std::vector<std::pair<std::string, std::string>> headers = {};
};

struct HttpAnswer {
  int status = 0;
  std::string content_type, body;
};

// Connections are kept for the next request, at most two of each address. Thread-safe.
class HttpClient {
 public:
  // Reads the files now; throws Error naming the one that cannot be used.
  explicit HttpClient(const HttpClientTls& tls, HttpClientOptions options = {});
  ~HttpClient();

  // Throws unavailable when the peer cannot be reached or hangs up, deadline_exceeded after `timeout` for the
  // whole exchange (looking up the name included), permission_denied when TLS refuses one side's certificate or the
  // socket is served by somebody else's process, cancelled on `stop`, resource_exhausted for an answer above 16 MiB. A
  // request on a kept connection that the peer had closed is sent again on a new one.
  HttpAnswer exchange(const HttpAddress& address, const HttpExchange& request, Millis timeout,
                      std::stop_token stop = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent::controller

// Where a role of ours is spoken to.
#pragma once

#include <string>
#include <string_view>

#include "net/http_client.h"

namespace guestagent {

// "unix:/run/guestagent/agent.sock", "https://host:port", "http://host:port" (IPv6 in brackets).
struct HttpAddress {
  enum class Kind { unix_socket, tcp, tls } kind = Kind::tcp;
  std::string path;  // of the socket
  std::string host, port;

  // Throws invalid_argument, naming the address. http:// is for this host only: a loopback address or exactly
  // "localhost".
  static HttpAddress parse(std::string_view text);
  std::string host_header() const;
  // A request that goes there; `target` begins with a slash.
  HttpRequest request(std::string what, std::string method, std::string_view target) const;
};

}  // namespace guestagent

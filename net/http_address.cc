#include "net/http_address.h"

#include "base/error.h"
#include "base/host_name.h"
#include "base/text.h"

namespace guestagent {

HttpAddress HttpAddress::parse(std::string_view text) {
  const auto bad = [&](const std::string& why) {
    return Error(Code::invalid_argument, "reading the address " + printable(text) + ": " + why,
                 "write unix:/path/agent.sock or https://host:port");
  };
  HttpAddress out;
  if (text.starts_with("unix:")) {
    out.kind = Kind::unix_socket;
    out.path = text.substr(5);
    if (!out.path.starts_with('/')) throw bad("the socket's path must begin with a slash");
    if (out.path.size() > 107) throw bad("a socket's path has at most 107 bytes");
    if (out.path.find('\0') != std::string::npos) throw bad("it has a zero byte");
    return out;
  }
  std::string_view rest = text;
  if (rest.starts_with("https://")) {
    out.kind = Kind::tls;
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else {
    throw bad("it begins with none of unix:, https:// and http://");
  }
  if (rest.ends_with('/')) rest.remove_suffix(1);
  const auto host = HostPort::parse(rest);
  if (!host)
    throw bad(
        "after the scheme comes a host name or an address (IPv6 in brackets), a colon and a port from 1 to 65535");
  if (!host->port) throw bad("the port is missing");
  out.host = host->host.text();
  out.port = std::to_string(*host->port);
  if (out.kind == Kind::tcp && !host->host.is_loopback()) throw bad("plain http goes to this host only");
  return out;
}

std::string HttpAddress::host_header() const {
  if (kind == Kind::unix_socket) return "agent";
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + port;
}

HttpRequest HttpAddress::request(std::string what, std::string method, std::string_view target) const {
  HttpRequest out{.what = std::move(what), .method = std::move(method)};
  out.url = (kind == Kind::tls ? "https://" : "http://") + host_header() + std::string(target);
  out.socket = path;
  return out;
}

}  // namespace guestagent

#include "agent/listener.h"

#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>

#include "base/error.h"
#include "base/host_name.h"

namespace guestagent {
namespace {

constexpr int kTcpBacklog = 128;

}  // namespace

UnixAccess unix_access(const AgentSettings& settings) {
  return {"agent", settings.socket, settings.socket_mode, settings.allow_users, settings.allow_groups};
}

UniqueFd listen_tcp(const std::string& address) {
  const std::string doing = "agent.listen.address: listen at " + address;
  const auto at = HostPort::parse(address);
  if (!at || !at->port) throw Error(Code::invalid_argument, doing + ": must be ADDRESS:PORT");
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int failed = ::getaddrinfo(at->host.text().c_str(), std::to_string(*at->port).c_str(), &hints, &found)) {
    throw Error(Code::invalid_argument, doing + ": " + ::gai_strerror(failed));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owned(found, ::freeaddrinfo);
  UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(fd.get(), kTcpBacklog) != 0) {
    throw system_error(doing, errno);
  }
  return fd;
}

}  // namespace guestagent

#include "agent/watchdog.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/log.h"
#include "base/unique_fd.h"

namespace guestagent {
namespace {

constexpr std::string_view kQuestion = "GET /healthz HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n";

void limit(int fd, Millis timeout) {
  const timeval each{timeout.count() / 1000, static_cast<suseconds_t>(timeout.count() % 1000 * 1000)};
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &each, sizeof each);  // of connect, too
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &each, sizeof each);
}

}  // namespace

bool answers(const fs::path& socket, Millis timeout) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket.native().size() >= sizeof address.sun_path) return true;  // the server would not have started
  std::memcpy(address.sun_path, socket.c_str(), socket.native().size() + 1);
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return true;  // no descriptors is no hang
  limit(fd.get(), timeout);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return errno != EAGAIN;
  if (::send(fd.get(), kQuestion.data(), kQuestion.size(), MSG_NOSIGNAL) < 0) return errno != EAGAIN;
  char first;
  ssize_t n;
  while ((n = ::recv(fd.get(), &first, 1, 0)) < 0 && errno == EINTR) {
  }
  return n >= 0 || errno != EAGAIN;
}

Watchdog::Watchdog(const fs::path& socket) {
  std::uint64_t watchdog_us = 0;
  if (::sd_watchdog_enabled(0, &watchdog_us) <= 0) return;
  const Millis third(watchdog_us / 3000);
  feeding_ = std::jthread([socket, third](const std::stop_token& stop) {
    do {
      if (answers(socket, third)) {
        ::sd_notify(0, "WATCHDOG=1");
      } else {
        log_error("the agent's own server does not answer; the service manager is not told that all is well",
                  {{"socket", socket.string()}});
      }
    } while (system_clock().sleep(third, stop));
  });
}

}  // namespace guestagent

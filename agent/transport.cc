#include "agent/transport.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "agent/transport_wait.h"

namespace guestagent {
namespace {

constexpr Millis kLinger{1000};
constexpr std::size_t kLingerBytes = std::size_t{4} << 20;

class PlainTransport final : public Transport {
 public:
  PlainTransport(UniqueFd fd, int wake_fd) : fd_(std::move(fd)), wake_fd_(wake_fd) {}

  bool establish(End&) override { return true; }
  std::size_t read(void* into, std::size_t size, End& end) override {
    for (;;) {
      if (const auto why = wait_ready(fd_.get(), POLLIN, wake_fd_, deadline_)) return end = *why, 0;
      const ssize_t n = ::recv(fd_.get(), into, size, MSG_DONTWAIT);
      if (n > 0) return static_cast<std::size_t>(n);
      if (n == 0) return end = End::closed, 0;
      if (errno != EINTR && errno != EAGAIN) return end = End::broken, 0;
    }
  }

  std::size_t write(const void* from, std::size_t size, End& end) override {
    for (;;) {
      if (const auto why = wait_ready(fd_.get(), POLLOUT, -1, deadline_)) return end = *why, 0;
      const ssize_t n = ::send(fd_.get(), from, size, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) return static_cast<std::size_t>(n);
      if (n < 0 && errno != EINTR && errno != EAGAIN) return end = End::broken, 0;
    }
  }

  void finish() override { linger_and_close(fd_.release()); }
  bool peer_gone() override { return peer_has_closed(fd_.get(), false); }

 private:
  UniqueFd fd_;
  int wake_fd_;
};

}  // namespace

std::optional<Transport::End> wait_ready(int fd, short events, int wake_fd, SteadyTime deadline) {
  for (;;) {
    int timeout = -1;
    if (deadline != SteadyTime::max()) {
      const auto left = std::chrono::ceil<Millis>(deadline - std::chrono::steady_clock::now()).count();
      if (left <= 0) return Transport::End::timed_out;
      timeout = static_cast<int>(std::min<std::int64_t>(left, 3600000));
    }
    std::array<pollfd, 2> fds = {pollfd{fd, events, 0}, pollfd{wake_fd, POLLIN, 0}};
    const int ready = ::poll(fds.data(), wake_fd >= 0 ? 2 : 1, timeout);
    if (ready < 0 && errno != EINTR) return Transport::End::broken;
    if (ready <= 0) continue;
    if (fds[0].revents != 0) return std::nullopt;  // an error shows in the call that follows
    if (fds[1].revents != 0) return Transport::End::stopping;
  }
}

void linger_and_close(int fd) {
  const UniqueFd owned(fd);
  if (fd < 0 || ::shutdown(fd, SHUT_WR) != 0) return;
  const SteadyTime until = std::chrono::steady_clock::now() + kLinger;
  std::array<char, 16384> waste;
  for (std::size_t total = 0; total < kLingerBytes;) {
    if (wait_ready(fd, POLLIN, -1, until)) return;
    const ssize_t n = ::recv(fd, waste.data(), waste.size(), MSG_DONTWAIT);
    if (n <= 0) return;
    total += static_cast<std::size_t>(n);
  }
}

bool peer_has_closed(int fd, bool half) {
  pollfd look{fd, static_cast<short>(half ? POLLRDHUP : 0), 0};
  return ::poll(&look, 1, 0) > 0 && look.revents != 0;
}

std::unique_ptr<Transport> make_plain_transport(UniqueFd fd, int wake_fd) {
  return std::make_unique<PlainTransport>(std::move(fd), wake_fd);
}

}  // namespace guestagent

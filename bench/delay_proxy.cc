// A TCP relay that holds back what passes, each way, for a fixed time: the delay of a long link where the kernel has no
// netem.
//
//   delay_proxy LISTEN_ADDRESS TARGET_PORT DELAY_MS     listens on a free port and prints it; the target is on
//   127.0.0.1
//
// Runs until it is killed.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/unique_fd.h"

namespace guestagent::bench {
namespace {

using Time = std::chrono::steady_clock::time_point;
constexpr std::size_t kPiece = std::size_t{64} << 10;
// More than 1 Gbit/s holds in a tenth of a second.
constexpr std::size_t kMostHeld = std::size_t{16} << 20;

sockaddr_in address_of(const std::string& host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  if (::inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1)
    throw Error(Code::invalid_argument, host + ": no IPv4 address");
  return address;
}

struct Connection {
  UniqueFd near, far;
};

// What is on its way in one direction. Two threads: one reads, one sends when the time has come.
class Direction {
 public:
  Direction(std::shared_ptr<Connection> connection, int from, int to, std::chrono::milliseconds delay)
      : connection_(std::move(connection)), from_(from), to_(to), delay_(delay) {}

  void read() {
    while (true) {
      std::vector<char> piece(kPiece);
      const ssize_t n = ::recv(from_, piece.data(), piece.size(), 0);
      piece.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
      const bool end = piece.empty();
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return held_ < kMostHeld; });
      held_ += piece.size();
      pieces_.emplace_back(std::chrono::steady_clock::now() + delay_, std::move(piece));
      changed_.notify_all();
      if (end) return;
    }
  }

  void send() {
    bool broken = false;
    while (true) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !pieces_.empty(); });
      auto [due, piece] = std::move(pieces_.front());
      pieces_.pop_front();
      held_ -= piece.size();
      changed_.notify_all();
      lock.unlock();
      if (piece.empty()) break;
      std::this_thread::sleep_until(due);
      for (std::size_t sent = 0; sent < piece.size() && !broken;) {
        const ssize_t n = ::send(to_, piece.data() + sent, piece.size() - sent, MSG_NOSIGNAL);
        broken = n <= 0;
        if (!broken) sent += static_cast<std::size_t>(n);
      }
      // The reader ends by it, too.
      if (broken) ::shutdown(from_, SHUT_RDWR);
    }
    ::shutdown(to_, SHUT_WR);
  }

 private:
  const std::shared_ptr<Connection> connection_;
  const int from_, to_;
  const std::chrono::milliseconds delay_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<Time, std::vector<char>>> pieces_;
  std::size_t held_ = 0;
};

void start(const std::shared_ptr<Direction>& direction) {
  std::thread([direction] { direction->read(); }).detach();
  std::thread([direction] { direction->send(); }).detach();
}

[[noreturn]] void serve(const std::string& host, int target_port, std::chrono::milliseconds delay) {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in here = address_of(host, 0);
  socklen_t size = sizeof here;
  auto* plain = reinterpret_cast<sockaddr*>(&here);
  if (::bind(listener.get(), plain, size) != 0 || ::listen(listener.get(), 64) != 0 ||
      ::getsockname(listener.get(), plain, &size) != 0) {
    throw system_error("listening on " + host, errno);
  }
  std::cout << ntohs(here.sin_port) << std::endl;
  const sockaddr_in target = address_of("127.0.0.1", target_port);
  while (true) {
    auto connection = std::make_shared<Connection>();
    connection->near.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    connection->far.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!connection->near ||
        ::connect(connection->far.get(), reinterpret_cast<const sockaddr*>(&target), sizeof target) != 0)
      continue;
    const int on = 1;
    for (const int fd : {connection->near.get(), connection->far.get()})
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    start(std::make_shared<Direction>(connection, connection->near.get(), connection->far.get(), delay));
    start(std::make_shared<Direction>(connection, connection->far.get(), connection->near.get(), delay));
  }
}

}  // namespace
}  // namespace guestagent::bench

int main(int argc, char** argv) {
  try {
    if (argc != 4) {
      std::cerr << "usage: delay_proxy LISTEN_ADDRESS TARGET_PORT DELAY_MS\n";
      return 2;
    }
    guestagent::bench::serve(argv[1], std::stoi(argv[2]), std::chrono::milliseconds(std::stoi(argv[3])));
  } catch (const std::exception& error) {
    std::cerr << "delay_proxy: " << error.what() << '\n';
    return 1;
  }
}

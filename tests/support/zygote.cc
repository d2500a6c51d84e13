#include "tests/support/zygote.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "base/error.h"

namespace guestagent::test {
namespace {

constexpr std::size_t kMaxMessage = 64 << 10;

int run_once(const std::string& message, const Zygote::Work& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::vector<std::string> words;
    std::istringstream in(message);
    for (std::string line; std::getline(in, line);) words.push_back(line);
    ::setenv("GUESTAGENT_FAILPOINT", words.at(0).c_str(), 1);
    words.erase(words.begin());
    try {
      work(words);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
    }
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

}  // namespace

Zygote::Zygote(Work work) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    throw system_error("making a socket pair", errno);
  pid_ = ::fork();
  if (pid_ != 0) {
    ::close(ends[1]);
    socket_ = ends[0];
    return;
  }
  ::close(ends[0]);
  std::string buffer(kMaxMessage, '\0');
  for (;;) {
    const ssize_t n = ::recv(ends[1], buffer.data(), buffer.size(), 0);
    if (n <= 0) ::_exit(0);
    const int signal = run_once(buffer.substr(0, static_cast<std::size_t>(n)), work);
    if (::send(ends[1], &signal, sizeof signal, MSG_NOSIGNAL) != sizeof signal) ::_exit(1);
  }
}

Zygote::~Zygote() {
  ::close(socket_);
  int status = 0;
  ::waitpid(pid_, &status, 0);
}

int Zygote::run(const std::string& failpoint, const std::vector<std::string>& words) {
  std::string message = failpoint + "\n";
  for (const std::string& word : words) message += word + "\n";
  int signal = -1;
  if (::send(socket_, message.data(), message.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(message.size()) ||
      ::recv(socket_, &signal, sizeof signal, 0) != sizeof signal) {
    throw system_error("asking the zygote", errno);
  }
  return signal;
}

}  // namespace guestagent::test

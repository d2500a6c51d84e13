#include "base/child.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <thread>

#include "base/child_spawn.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "base/unique_fd.h"

namespace guestagent {
namespace {

constexpr std::size_t kKeptLines = 20;
constexpr std::size_t kKeptLineChars = 497;  // and "..." where it was longer
constexpr std::size_t kMaxLineBytes = 64 << 10;
// How long standard error may stay open, silent, after the process itself has ended: somebody else holds it
// then.
constexpr int kSilenceMs = 1000;

UniqueFd make_event() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) throw system_error("creating an event descriptor", errno);
  return fd;
}

void signal_event(int fd) {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then it is signalled anyway.
  [[maybe_unused]] const ssize_t n = ::write(fd, &one, sizeof one);
}

int remaining_ms(SteadyTime until) {
  const auto left = std::chrono::ceil<Millis>(until - std::chrono::steady_clock::now()).count();
  return static_cast<int>(std::clamp<Millis::rep>(left, 0, 3600 * 1000));
}

}  // namespace

struct Child::State {
  std::string name;
  pid_t pid = -1;
  UniqueFd stdin_end, stdout_end, lines_end;
  UniqueFd pid_fd;  // empty where the kernel has none
  UniqueFd leader_gone = make_event();
  UniqueFd drained = make_event();
  std::function<void(std::string_view)> on_line;
  std::thread drainer;

  mutable std::mutex mutex;  // of what follows
  std::deque<std::string> lines;
  std::exception_ptr line_error;
  bool reaped = false;
  std::optional<Exit> exit;

  void drain();
  void take_line(std::string_view line);
  bool leader_ended();
  bool wait_leader(const std::stop_token& stop, std::optional<SteadyTime> deadline);
  Exit collect();
  void kill(int signal);
};

void Child::State::take_line(std::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  {
    std::lock_guard lock(mutex);
    lines.push_back(printable(line, kKeptLineChars));
    if (lines.size() > kKeptLines) lines.pop_front();
    if (line_error) return;
  }
  if (!on_line) return;
  try {
    on_line(line);
  } catch (...) {
    std::lock_guard lock(mutex);
    line_error = std::current_exception();  // thrown by wait()
  }
}

void Child::State::drain() {
  std::string line;
  bool cut = false;  // the rest of a line that is too long is dropped
  bool ended = false;
  char buffer[16 << 10];
  for (;;) {
    pollfd wait_for[2] = {{lines_end.get(), POLLIN, 0}, {leader_gone.get(), POLLIN, 0}};
    const int ready = ::poll(wait_for, ended ? 1 : 2, ended ? kSilenceMs : -1);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) break;
    if (!ended && wait_for[1].revents != 0) ended = true;
    if (wait_for[0].revents == 0) continue;
    const ssize_t n = ::read(lines_end.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    std::string_view rest(buffer, static_cast<std::size_t>(n));
    while (!rest.empty()) {
      const std::size_t end = rest.find('\n');
      const std::string_view piece = rest.substr(0, end);
      if (!cut) line += piece;
      if (line.size() > kMaxLineBytes) {
        line.resize(kMaxLineBytes);
        cut = true;
      }
      if (end == std::string_view::npos) break;
      take_line(line);
      line.clear();
      cut = false;
      rest.remove_prefix(end + 1);
    }
  }
  if (!line.empty()) take_line(line);
  signal_event(drained.get());
}

bool Child::State::leader_ended() {
  siginfo_t info{};
  // Not reaped: as long as its number is taken, a signal to the group reaches nobody else.
  return ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

// False when `stop` was requested or the deadline passed first.
bool Child::State::wait_leader(const std::stop_token& stop, std::optional<SteadyTime> deadline) {
  const UniqueFd stopped = make_event();
  const std::stop_callback on_stop(stop, [&] { signal_event(stopped.get()); });
  for (;;) {
    if (leader_ended()) return true;
    if (stop.stop_requested()) return false;
    const int left = deadline ? remaining_ms(*deadline) : -1;
    if (left == 0) return false;
    pollfd wait_for[2] = {{stopped.get(), POLLIN, 0}, {pid_fd.get(), POLLIN, 0}};
    ::poll(wait_for, 2, pid_fd ? left : std::min(20u, static_cast<unsigned>(left)));
  }
}

// REQUIRES: the leader has ended. Kills what is left of the group and reaps.
Child::Exit Child::State::collect() {
  {
    std::lock_guard lock(mutex);
    if (exit) return *exit;
  }
  signal_event(leader_gone.get());
  if (drainer.joinable()) drainer.join();
  std::lock_guard lock(mutex);
  ::kill(-pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  reaped = true;
  exit = WIFSIGNALED(status) ? Exit{-1, WTERMSIG(status)} : Exit{WEXITSTATUS(status), 0};
  return *exit;
}

void Child::State::kill(int signal) {
  std::lock_guard lock(mutex);
  if (!reaped) ::kill(-pid, signal);
}

Child::Child(ChildSpec spec) : state_(std::make_unique<State>()) {
  SpawnedProcess process = spawn_process(spec);
  state_->name = spec.argv[0];
  state_->pid = process.pid;
  state_->stdin_end = std::move(process.stdin_end);
  state_->stdout_end = std::move(process.stdout_end);
  state_->lines_end = std::move(process.lines_end);
  state_->pid_fd.reset(static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0)));
  state_->on_line = std::move(spec.on_line);
  try {
    state_->drainer = std::thread([state = state_.get(), tags = LogScope::current()] {
      const LogScope scope(tags);
      state->drain();
    });
  } catch (const std::system_error& e) {
    state_->kill(SIGKILL);
    state_->wait_leader({}, std::nullopt);
    state_->collect();
    throw Error(Code::resource_exhausted, "starting " + spec.argv[0] + ": no thread for its output: " + e.what());
  }
}

Child::~Child() {
  if (!state_ || state_->pid < 0) return;
  state_->stdin_end.reset();
  state_->stdout_end.reset();
  state_->kill(SIGKILL);
  try {
    if (!state_->exit) state_->wait_leader({}, std::nullopt);
    state_->collect();
  } catch (...) {
    // Only descriptors can run out here; the process is killed and init will reap it.
  }
  if (state_->drainer.joinable()) state_->drainer.join();
}

pid_t Child::pid() const {
  return state_->pid;
}
int Child::stdin_fd() const {
  return state_->stdin_end.get();
}
int Child::stdout_fd() const {
  return state_->stdout_end.get();
}
void Child::close_stdin() {
  state_->stdin_end.reset();
}
void Child::kill_group(int signal) {
  state_->kill(signal);
}

std::string Child::Exit::describe() const {
  if (signal == 0) return "exit status " + std::to_string(status);
  const char* text = ::sigdescr_np(signal);
  return "killed by signal " + std::to_string(signal) + " (" + (text != nullptr ? text : "unknown") + ")";
}

Child::Exit Child::wait(std::stop_token stop) {
  if (!state_->exit && !state_->wait_leader(stop, std::nullopt)) {
    state_->kill(SIGKILL);
    state_->wait_leader({}, std::nullopt);
    state_->collect();
    throw Error(Code::cancelled, "running " + state_->name + ": stopped on request");
  }
  const Exit exit = state_->collect();
  if (auto error = std::exchange(state_->line_error, nullptr)) std::rethrow_exception(error);
  return exit;
}

std::optional<Child::Exit> Child::try_wait() {
  if (!state_->exit && !state_->leader_ended()) return std::nullopt;
  return wait();
}

std::vector<std::string> Child::last_lines() const {
  std::lock_guard lock(state_->mutex);
  return {state_->lines.begin(), state_->lines.end()};
}

std::string run_and_read(ChildSpec spec, Millis timeout, std::size_t max_bytes, std::stop_token stop) {
  spec.pipe_stdout = true;
  const std::string doing = "running " + (spec.argv.empty() ? std::string() : spec.argv[0]);
  const SteadyTime deadline = std::chrono::steady_clock::now() + timeout;
  Child child(std::move(spec));
  const UniqueFd stopped = make_event();
  const std::stop_callback on_stop(stop, [&] { signal_event(stopped.get()); });
  const auto last_words = [&] {
    std::string text;
    for (const std::string& line : child.last_lines()) text += "\n  " + line;
    return text;
  };
  const auto late = [&] {
    return Error(Code::deadline_exceeded,
                 doing + ": not done after " + std::to_string(timeout.count()) + " ms" + last_words());
  };

  std::string out;
  char buffer[16 << 10];
  for (;;) {
    if (stop.stop_requested()) throw Error(Code::cancelled, doing + ": stopped on request");
    const int left = remaining_ms(deadline);
    if (left == 0) throw late();
    pollfd wait_for[2] = {{child.stdout_fd(), POLLIN, 0}, {stopped.get(), POLLIN, 0}};
    if (::poll(wait_for, 2, left) <= 0 || wait_for[0].revents == 0) continue;
    const ssize_t n = ::read(child.stdout_fd(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error(doing, errno);
    if (n == 0) break;
    out.append(buffer, static_cast<std::size_t>(n));
    if (out.size() > max_bytes) {
      throw Error(Code::resource_exhausted, doing + ": it prints more than " + std::to_string(max_bytes) + " bytes");
    }
  }
  while (true) {
    if (const auto exit = child.try_wait()) {
      if (!exit->ok()) throw Error(Code::internal, doing + ": " + exit->describe() + last_words());
      return out;
    }
    if (stop.stop_requested()) throw Error(Code::cancelled, doing + ": stopped on request");
    if (remaining_ms(deadline) == 0) throw late();
    system_clock().sleep(Millis(5), stop);
  }
}

}  // namespace guestagent

#include "base/child_spawn.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <future>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "base/lasting_thread.h"

namespace guestagent {
namespace {

struct Pipe {
  UniqueFd read_end, write_end;
};

// Both ends above 2, so that placing them at 0, 1 and 2 in the child overwrites none of them.
UniqueFd above_stdio(UniqueFd fd) {
  if (fd.get() > 2) return fd;
  UniqueFd moved(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  if (!moved) throw system_error("copying a file descriptor", errno);
  return moved;
}

Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw system_error("creating a pipe", errno);
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  return {above_stdio(std::move(read_end)), above_stdio(std::move(write_end))};
}

// Fewer switches between the two processes on the data path; where the limit for users is lower, the default
// does.
void widen(const Pipe& pipe) {
  ::fcntl(pipe.read_end.get(), F_SETPIPE_SZ, 1 << 20);
}

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> out;
  for (const std::string& word : words) out.push_back(const_cast<char*>(word.c_str()));
  out.push_back(nullptr);
  return out;
}

std::vector<gid_t> groups_of(uid_t uid, gid_t gid) {
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(16 << 10);
  std::vector<gid_t> groups{gid};
  if (::getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) return groups;
  int count = 256;
  groups.resize(256);
  if (::getgrouplist(found->pw_name, gid, groups.data(), &count) < 0) count = 256;
  groups.resize(static_cast<std::size_t>(count));
  return groups;
}

enum class Stage : int { prepare, directory, user, exec };

struct ExecFailure {
  Stage stage;
  int error;
};

// Everything the child needs, made before the fork: another thread may hold the allocator's lock at that
// moment.
struct Plan {
  const char* program;
  char* const* argv;
  char* const* env;
  const char* working_dir;  // nullptr: inherited
  int in, out, err;
  int report;
  bool change_user;
  uid_t uid;
  gid_t gid;
  const gid_t* groups;
  std::size_t group_count;
  pid_t parent;
};

// Only async-signal-safe calls from here to exec.
[[noreturn]] void fail(const Plan& plan, Stage stage) {
  const ExecFailure failure{stage, errno};
  [[maybe_unused]] const ssize_t n = ::write(plan.report, &failure, sizeof failure);
  ::_exit(127);
}

void close_others() {
  if (::syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC) == 0) return;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t last = std::min<rlim_t>(limit.rlim_cur, 65536);
  for (rlim_t fd = 3; fd < last; ++fd) ::fcntl(static_cast<int>(fd), F_SETFD, FD_CLOEXEC);
}

[[noreturn]] void become(const Plan& plan) {
  struct sigaction plain {};
  plain.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) ::sigaction(signal, &plain, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  if (::sigprocmask(SIG_SETMASK, &none, nullptr) != 0) fail(plan, Stage::prepare);
  if (::setpgid(0, 0) != 0) fail(plan, Stage::prepare);
  if (::dup2(plan.in, 0) < 0 || ::dup2(plan.out, 1) < 0 || ::dup2(plan.err, 2) < 0) fail(plan, Stage::prepare);
  close_others();
  if (plan.change_user) {
    // The bare system calls: libc's versions signal the threads of a process that has none any more.
    if (::syscall(SYS_setgroups, plan.group_count, plan.groups) != 0) fail(plan, Stage::user);
    if (::syscall(SYS_setresgid, plan.gid, plan.gid, plan.gid) != 0) fail(plan, Stage::user);
    if (::syscall(SYS_setresuid, plan.uid, plan.uid, plan.uid) != 0) fail(plan, Stage::user);
  }
  if (plan.working_dir != nullptr && ::chdir(plan.working_dir) != 0) fail(plan, Stage::directory);
  // After the change of user, which clears it.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail(plan, Stage::prepare);
  if (::getppid() != plan.parent) ::_exit(127);
  ::execve(plan.program, plan.argv, plan.env);
  fail(plan, Stage::exec);
}

Error start_error(const ChildSpec& spec, const std::string& program, const ExecFailure& failure) {
  const std::string doing = "starting " + spec.argv[0];
  switch (failure.stage) {
    case Stage::directory:
      return system_error(doing + ": changing to the directory " + spec.working_dir, failure.error);
    case Stage::user:
      return system_error(doing + ": changing to user " + std::to_string(spec.run_as->first), failure.error);
    case Stage::prepare:
      return system_error(doing, failure.error);
    case Stage::exec:
      break;
  }
  if (failure.error == ENOENT) {
    return Error(Code::not_found, doing + ": " + program + ": no such program, or its interpreter is missing",
                 "install " + spec.argv[0] + " or correct its path");
  }
  if (failure.error == EACCES) {
    return Error(Code::permission_denied, doing + ": " + program + ": it may not be executed",
                 "check its mode, and that its file system is not mounted noexec");
  }
  return system_error(doing + ": " + program, failure.error);
}

}  // namespace

std::optional<std::string> find_program(std::string_view name) {
  const auto usable = [](const std::string& path) {
    return ::access(path.c_str(), X_OK) == 0 && fs::is_regular_file(path);
  };
  if (name.empty()) return std::nullopt;
  if (name.find('/') != std::string_view::npos) {
    std::string path(name);
    return usable(path) ? std::optional(path) : std::nullopt;
  }
  const char* setting = std::getenv("PATH");
  const std::string places =
      std::string(setting != nullptr ? setting : "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin";
  for (std::size_t at = 0; at <= places.size();) {
    const std::size_t end = std::min(places.find(':', at), places.size());
    const std::string path = places.substr(at, end - at) + "/" + std::string(name);
    // Relative entries would make the program depend on the directory the agent was started in.
    if (path[0] == '/' && usable(path)) return path;
    at = end + 1;
  }
  return std::nullopt;
}

SpawnedProcess spawn_process(const ChildSpec& spec) {
  if (spec.argv.empty() || spec.argv[0].empty())
    throw Error(Code::invalid_argument, "starting a program: none is named");
  const char* path = std::getenv("PATH");
  const std::string search = path != nullptr ? path : "/usr/bin:/bin";
  std::string program = spec.argv[0];
  if (program.find('/') == std::string::npos) {
    const auto found = find_program(program);
    if (!found) {
      throw Error(
          Code::not_found, "starting " + program + ": no such program",
          "install " + program + " or add its directory to PATH (searched: " + search + " and the sbin directories)");
    }
    program = *found;
  }
  const std::vector<std::string> env =
      spec.env.empty() ? std::vector<std::string>{"PATH=" + search, "LC_ALL=C"} : spec.env;
  const std::vector<char*> argv = pointers(spec.argv), envp = pointers(env);
  const std::vector<gid_t> groups =
      spec.run_as ? groups_of(spec.run_as->first, spec.run_as->second) : std::vector<gid_t>{};

  UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) throw system_error("opening /dev/null", errno);
  null = above_stdio(std::move(null));
  Pipe in, out, lines = make_pipe(), report = make_pipe();
  if (spec.pipe_stdin) widen(in = make_pipe());
  if (spec.pipe_stdout) widen(out = make_pipe());

  const Plan plan{program.c_str(),
                  argv.data(),
                  envp.data(),
                  spec.working_dir.empty() ? nullptr : spec.working_dir.c_str(),
                  spec.pipe_stdin ? in.read_end.get() : null.get(),
                  spec.pipe_stdout ? out.write_end.get() : lines.write_end.get(),
                  lines.write_end.get(),
                  report.write_end.get(),
                  spec.run_as.has_value(),
                  spec.run_as ? spec.run_as->first : 0,
                  spec.run_as ? spec.run_as->second : 0,
                  groups.data(),
                  groups.size(),
                  ::getpid()};
  // The kernel's death signal is tied to the thread that forked, not to the process: a job's thread ends
  // before what it started.
  pid_t pid = -1;
  int fork_error = 0;
  lasting_thread().run([&] {
    // Blocked around the fork: a handler of the agent must not run in the child.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = ::fork();
    if (pid == 0) become(plan);
    fork_error = errno;
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  });
  if (pid < 0) {
    throw Error(Code::resource_exhausted, "starting " + spec.argv[0] + ": " + system_error("fork", fork_error).what(),
                "check the limits on processes and memory");
  }

  report.write_end.reset();
  ExecFailure failure{};
  ssize_t n = 0;
  do {
    n = ::read(report.read_end.get(), &failure, sizeof failure);
  } while (n < 0 && errno == EINTR);
  if (n == sizeof failure) {
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    throw start_error(spec, program, failure);
  }
  return {pid, std::move(in.write_end), std::move(out.read_end), std::move(lines.read_end)};
}

}  // namespace guestagent

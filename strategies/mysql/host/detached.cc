#include "strategies/mysql/host/detached.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <sstream>

#include "base/child.h"
#include "base/error.h"
#include "base/json.h"

namespace guestagent::mysql {
namespace {

struct Pipe {
  UniqueFd read_end, write_end;
};

Pipe make_pipe() {
  std::array<int, 2> fds{};
  if (::pipe2(fds.data(), O_CLOEXEC) != 0) throw system_error("making a pipe", errno);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

// Everything after fork may only call what is safe there, so all of it is made before.
struct Prepared {
  std::string program;
  std::vector<std::string> argv, env;
  std::vector<char*> argv_p, env_p;
  int null_fd = -1, output_fd = -1, go_fd = -1, report_fd = -1;
  bool change_user = false;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

[[noreturn]] void report_and_exit(int fd) {
  const int err = errno;
  [[maybe_unused]] const ssize_t n = ::write(fd, &err, sizeof err);
  ::_exit(127);
}

[[noreturn]] void become(Prepared& p) {
  ::setsid();
  char go = 0;
  // The starter died before the record was written: nobody could find this process again.
  if (::read(p.go_fd, &go, 1) != 1) ::_exit(125);
  for (int s = 1; s < NSIG; ++s) ::signal(s, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::umask(0022);
  if (::dup2(p.null_fd, 0) < 0 || ::dup2(p.output_fd, 1) < 0 || ::dup2(p.output_fd, 2) < 0)
    report_and_exit(p.report_fd);
  if (p.change_user) {
    if (::setgroups(p.groups.size(), p.groups.data()) != 0 || ::setgid(p.gid) != 0 || ::setuid(p.uid) != 0) {
      report_and_exit(p.report_fd);
    }
  }
  // The report pipe closes by exec: that is how the starter knows.
  const int keep = ::fcntl(p.report_fd, F_DUPFD_CLOEXEC, 3);
  if (keep < 0) report_and_exit(p.report_fd);
  if (keep > 3) ::close_range(3, static_cast<unsigned>(keep) - 1, 0);
  ::close_range(static_cast<unsigned>(keep) + 1, ~0U, 0);
  ::execve(p.program.c_str(), p.argv_p.data(), p.env_p.data());
  report_and_exit(keep);
}

std::vector<gid_t> groups_of(uid_t uid, gid_t gid) {
  std::vector<gid_t> groups(64);
  const passwd* user = ::getpwuid(uid);
  if (user == nullptr) return {gid};
  int count = static_cast<int>(groups.size());
  if (::getgrouplist(user->pw_name, gid, groups.data(), &count) < 0) {
    groups.resize(static_cast<std::size_t>(count));
    ::getgrouplist(user->pw_name, gid, groups.data(), &count);
  }
  groups.resize(static_cast<std::size_t>(count));
  return groups;
}

}  // namespace

std::optional<ProcessId> process_now(pid_t pid) {
  if (pid <= 0) return std::nullopt;
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  if (!std::getline(in, text)) return std::nullopt;
  const std::size_t end_of_name = text.rfind(')');
  if (end_of_name == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(end_of_name + 1));
  std::string state, skipped;
  fields >> state;
  if (state == "Z" || state == "X") return std::nullopt;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  ProcessId id{pid, 0};
  if (!(fields >> id.started)) return std::nullopt;
  return id;
}

void ask_to_end(const ProcessId& id) {
  const UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, id.pid, 0)));
  if (!fd) {
    if (errno == ESRCH) return;
    throw system_error("asking process " + std::to_string(id.pid) + " to end", errno);
  }
  // The descriptor holds on to one process: if it is still the one we mean now, the signal cannot reach another.
  if (!alive(id)) return;
  if (::syscall(SYS_pidfd_send_signal, fd.get(), SIGTERM, nullptr, 0) != 0 && errno != ESRCH) {
    throw system_error("asking process " + std::to_string(id.pid) + " to end", errno);
  }
}

ProcessId start_detached(const DetachedSpec& spec) {
  Prepared p;
  const auto program = find_program(spec.argv.at(0));
  if (!program) {
    throw Error(Code::not_found, "starting " + spec.argv[0] + ": there is no such program",
                "install it, or give its full path in the configuration");
  }
  p.program = *program;
  p.argv = spec.argv;
  p.env = spec.env;
  p.argv_p = pointers(p.argv);
  p.env_p = pointers(p.env);
  if (spec.run_as) {
    p.change_user = true;
    std::tie(p.uid, p.gid) = *spec.run_as;
    p.groups = groups_of(p.uid, p.gid);
  }
  const UniqueFd null_fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const UniqueFd output(::open(spec.output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640));
  if (!null_fd || !output) throw system_error("opening " + spec.output.string(), errno);
  Pipe go = make_pipe(), report = make_pipe(), name = make_pipe();
  p.null_fd = null_fd.get();
  p.output_fd = output.get();
  p.go_fd = go.read_end.get();
  p.report_fd = report.write_end.get();
  const int name_fd = name.write_end.get();
  const int go_write_fd = go.write_end.get();

  // Two forks: the process is nobody's child here, so its end leaves no zombie that would look alive.
  const pid_t middle = ::fork();
  if (middle < 0) throw system_error("starting " + spec.argv[0], errno);
  if (middle == 0) {
    const pid_t server = ::fork();
    if (server == 0) {
      ::close(go_write_fd);
      become(p);
    }
    [[maybe_unused]] const ssize_t n = ::write(name_fd, &server, sizeof server);
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(middle, &status, 0) < 0 && errno == EINTR) {
  }
  pid_t server = -1;
  if (::read(name.read_end.get(), &server, sizeof server) != sizeof server || server <= 0) {
    throw Error(Code::resource_exhausted, "starting " + spec.argv[0] + ": no process could be made");
  }
  const auto id = process_now(server);
  if (!id) throw Error(Code::internal, "starting " + spec.argv[0] + ": it died at once");
  if (!spec.record.empty()) {
    JsonWriter out;
    out.begin_object().member("pid", static_cast<std::uint64_t>(id->pid)).member("started", id->started).end_object();
    write_file_atomic(spec.record, out.text() + "\n", 0644);
  }
  report.write_end.reset();
  if (::write(go.write_end.get(), "g", 1) != 1) throw system_error("starting " + spec.argv[0], errno);
  int err = 0;
  if (::read(report.read_end.get(), &err, sizeof err) == static_cast<ssize_t>(sizeof err)) {
    throw system_error("starting " + p.program, err);
  }
  return *id;
}

std::optional<ProcessId> read_process_record(const fs::path& record) {
  std::string text;
  try {
    text = read_file(record, 4096);
  } catch (const Error& e) {
    if (e.code() == Code::not_found) return std::nullopt;
    throw;
  }
  const JsonDocument document = parse_json(text, record.string());
  const JsonReader in(document, record.string());
  const ProcessId id{static_cast<pid_t>(in.uint("pid", 1, INT32_MAX)), in.uint("started")};
  if (!alive(id)) return std::nullopt;
  return id;
}

std::vector<std::string> last_lines_of(const fs::path& file, std::size_t count, const std::vector<std::string>& words,
                                       std::uint64_t from) {
  constexpr std::streamoff kTail = 64 << 10;
  std::ifstream in(file, std::ios::binary);
  if (!in) return {};
  in.seekg(0, std::ios::end);
  const std::streamoff size = in.tellg();
  // A file that is shorter than it was is another one.
  const std::streamoff begin = static_cast<std::uint64_t>(size) < from ? 0 : static_cast<std::streamoff>(from);
  in.seekg(std::max(begin, size - kTail));
  std::deque<std::string> kept;
  for (std::string line; std::getline(in, line);) {
    const bool wanted = words.empty() || std::any_of(words.begin(), words.end(), [&](const std::string& word) {
                          return line.find(word) != std::string::npos;
                        });
    if (!wanted || line.empty()) continue;
    kept.push_back(line.substr(0, 500));
    if (kept.size() > count) kept.pop_front();
  }
  return {kept.begin(), kept.end()};
}

}  // namespace guestagent::mysql

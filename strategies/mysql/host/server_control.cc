#include "strategies/mysql/host/server_control.h"

#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "strategies/mysql/host/control_kinds.h"
#include "strategies/mysql/host/option_file.h"

extern char** environ;

namespace guestagent::mysql {
namespace {

constexpr Millis kPoll{50};
constexpr std::uintmax_t kLogKept = 10 << 20;

UniqueFd connect_to(const fs::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.string().size() >= sizeof address.sun_path) return {};
  std::memcpy(address.sun_path, path.c_str(), path.string().size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) throw system_error("making a socket", errno);
  // The generic address type is the one that connect() takes.
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return {};
  return fd;
}

}  // namespace

void CommonControl::start(Millis timeout, std::stop_token stop) {
  if (greets(settings_.socket)) return;
  const SteadyTime end = clock_.steady() + timeout;
  if (!running()) {
    std::error_code ec;
    error_log_ = configured_error_log(settings_);
    error_log_from_ = error_log_.empty() ? 0 : fs::file_size(error_log_, ec);
    if (ec) error_log_from_ = 0;
    try {
      launch(timeout, stop);
    } catch (const Error& e) {
      const std::string words = own_words();
      if (words.empty()) throw;
      throw Error(e.code(), e.what() + words, e.hint());
    }
  }
  while (!greets(settings_.socket)) {
    if (stop.stop_requested()) throw Error(Code::cancelled, "starting the database server: cancelled on request");
    const std::string ended = why_ended();
    if (!ended.empty())
      throw Error(Code::unavailable, "starting the database server: " + ended + own_words(), log_hint());
    if (clock_.steady() >= end) {
      throw Error(Code::deadline_exceeded,
                  "starting the database server: " + settings_.socket.string() + ": no greeting within " +
                      std::to_string(timeout.count() / 1000) + " s",
                  log_hint() + ", or raise mysql.server.start_timeout");
    }
    clock_.sleep(kPoll, stop);
  }
}

void CommonControl::stop(Millis timeout) {
  if (!running()) return;
  const SteadyTime end = clock_.steady() + timeout;
  // It gives its locks free a little before it is gone.
  const auto holds = data_holder(settings_.data_dir);
  const std::optional<ProcessId> server = holds ? process_now(*holds) : std::nullopt;
  ask_stop(timeout);
  while (running() || (server && alive(*server))) {
    if (clock_.steady() >= end) {
      const auto holder = data_holder(settings_.data_dir);
      throw Error(
          Code::deadline_exceeded,
          "stopping the database server: " + settings_.data_dir.string() + ": " +
              (holder ? "process " + std::to_string(*holder) + " still has its data files open"
                      : "it still answers on " + settings_.socket.string()) +
              " after " + std::to_string(timeout.count() / 1000) + " s",
          "see what that process waits for, check that mysql.server describes how this server is stopped, or raise "
          "mysql.server.stop_timeout");
    }
    clock_.sleep(kPoll, {});
  }
}

std::string CommonControl::own_words() const {
  if (error_log_.empty()) return "";
  const std::vector<std::string> lines = last_lines_of(error_log_, 5, {"ERROR", "error:", "unknown"}, error_log_from_);
  return lines.empty() ? "" : "; " + error_log_.string() + ": " + joined(lines, " | ");
}

bool CommonControl::running() {
  return data_holder(settings_.data_dir).has_value() || greets(settings_.socket);
}

std::string joined(const std::vector<std::string>& parts, std::string_view with) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : std::string(with)) + part;
  return out;
}

// A log of our own for what a started program prints; the one before is kept once.
fs::path fresh_log(const fs::path& dir) {
  make_dir(dir, 0755);
  const fs::path log = dir / "server.log";
  std::error_code ec;
  if (fs::file_size(log, ec) > kLogKept && !ec) fs::rename(log, dir / "server.log.1", ec);
  return log;
}

std::optional<ProcessId> socket_owner(const fs::path& socket) {
  const UniqueFd fd = connect_to(socket);
  if (!fd) return std::nullopt;
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return std::nullopt;
  return process_now(peer.pid);
}

std::optional<pid_t> data_holder(const fs::path& data_dir) {
  for (const char* name : {"ibdata1", "aria_log_control"}) {
    const fs::path path = data_dir / name;
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!fd) {
      if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) continue;
      throw system_error("looking who serves " + path.string(), errno);
    }
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (::fcntl(fd.get(), F_GETLK, &lock) != 0) throw system_error("looking who serves " + path.string(), errno);
    if (lock.l_type != F_UNLCK) return std::max<pid_t>(lock.l_pid, 0);
  }
  return std::nullopt;
}

bool greets(const fs::path& socket, Millis patience) {
  const UniqueFd fd = connect_to(socket);
  if (!fd) return false;
  pollfd waiting{fd.get(), POLLIN, 0};
  if (::poll(&waiting, 1, static_cast<int>(patience.count())) != 1) return false;
  std::array<unsigned char, 5> head{};
  // Length, sequence number, then the protocol's version (10) or an error (too many connections): both are a server
  // that serves.
  return ::recv(fd.get(), head.data(), head.size(), 0) == static_cast<ssize_t>(head.size()) &&
         (head[4] == 10 || head[4] == 0xff);
}

std::optional<std::pair<uid_t, gid_t>> server_user(const MysqlSettings& settings) {
  std::array<char, 4096> buffer{};
  passwd entry{};
  passwd* found = nullptr;
  ::getpwnam_r(settings.os_user.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr) {
    throw Error(Code::failed_precondition, "mysql.os_user: " + settings.os_user + ": there is no such user",
                "set mysql.os_user to the user that the database server runs as");
  }
  if (entry.pw_uid == ::geteuid()) return std::nullopt;
  if (::geteuid() != 0) {
    throw Error(Code::permission_denied,
                "mysql.os_user: " + settings.os_user + ": the agent runs as another user and is not root",
                "run the agent as root or as " + settings.os_user);
  }
  return std::make_pair(entry.pw_uid, entry.pw_gid);
}

std::vector<std::string> server_argv(const MysqlSettings& settings, const std::vector<std::string>& options,
                                     const fs::path& defaults_file) {
  std::vector<std::string> argv = settings.server.command;
  const auto names_defaults = [](const std::string& argument) {
    return argument.starts_with("--defaults-file=") || argument.starts_with("--defaults-extra-file=") ||
           argument == "--no-defaults";
  };
  const auto named = std::find_if(argv.begin(), argv.end(), names_defaults);
  if (named == argv.end()) {
    // It must be the server's first option; the server may be run by a loader before it.
    constexpr std::array<std::string_view, 4> servers = {"mariadbd", "mysqld", "mariadbd-safe", "mysqld_safe"};
    auto program = std::find_if(argv.begin(), argv.end(), [&](const std::string& argument) {
      return std::find(servers.begin(), servers.end(), fs::path(argument).filename().string()) != servers.end();
    });
    if (program == argv.end()) program = argv.begin();
    argv.insert(program + 1,
                "--defaults-file=" + (defaults_file.empty() ? settings.defaults_file : defaults_file).string());
  } else if (!defaults_file.empty()) {
    *named = "--defaults-file=" + defaults_file.string();
  }
  argv.insert(argv.end(), options.begin(), options.end());
  if (::geteuid() == 0 && !server_user(settings)) argv.push_back("--user=root");
  return argv;
}

std::vector<std::string> server_environment() {
  // MYSQL_HOME, MYSQL_TCP_PORT and the like are of a person's clients; a server that is started by its own unit has
  // none of them.
  constexpr std::array<std::string_view, 7> ours = {"NOTIFY_SOCKET=",  "WATCHDOG_",      "LISTEN_", "GUESTAGENT_",
                                                    "JOURNAL_STREAM=", "INVOCATION_ID=", "MYSQL_"};
  std::vector<std::string> out;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (std::none_of(ours.begin(), ours.end(), [&](std::string_view prefix) { return text.starts_with(prefix); })) {
      out.emplace_back(text);
    }
  }
  return out;
}

std::unique_ptr<ServerControl> make_server_control(const MysqlSettings& settings, const fs::path& state_dir,
                                                   Clock& clock) {
  const fs::path dir = state_dir / "mysql";
  if (settings.server.control == "process") return make_process_control(settings, dir, clock);
  if (settings.server.control == "commands") return make_commands_control(settings, dir, clock);
  return make_systemd_control(settings, clock);
}

}  // namespace guestagent::mysql

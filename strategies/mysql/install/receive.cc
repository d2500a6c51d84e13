#include "strategies/mysql/install/receive.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <mutex>

#include "base/child.h"
#include "base/error.h"
#include "base/held_dir.h"
#include "base/memory.h"
#include "base/text.h"
#include "config/units.h"
#include "strategies/mysql/copy/backup_tools.h"
#include "strategies/mysql/copy/clone_copy.h"
#include "strategies/mysql/copy/copy_names.h"
#include "strategies/mysql/copy/copy_options.h"
#include "strategies/mysql/copy/table_files.h"
#include "strategies/mysql/copy/tool_info.h"
#include "strategies/mysql/copy/xbstream_files.h"
#include "strategies/mysql/host/server_control.h"
#include "strategies/mysql/server/dialect.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kBlock = std::size_t{1} << 20;
constexpr std::size_t kLinesShown = 6, kShownOfLine = 300;  // of a tool's words in an error
constexpr std::size_t kLargestDescription = std::size_t{16} << 20;

// A tool that ends early must be an error with its own words, not a signal that ends the agent.
class NoBrokenPipeSignal {
 public:
  NoBrokenPipeSignal() {
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoBrokenPipeSignal() {
    const timespec now{};
    while (::sigtimedwait(&pipe_, nullptr, &now) > 0) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoBrokenPipeSignal(const NoBrokenPipeSignal&) = delete;
  NoBrokenPipeSignal& operator=(const NoBrokenPipeSignal&) = delete;

 private:
  sigset_t pipe_{}, before_{};
};

bool mentions_full_disk(const std::vector<std::string>& lines) {
  return std::any_of(lines.begin(), lines.end(), [](const std::string& line) {
    return line.find("No space left") != std::string::npos || line.find("Errcode: 28") != std::string::npos ||
           line.find("error 28") != std::string::npos || line.find("Disk quota") != std::string::npos;
  });
}

bool mentions_keys(const std::vector<std::string>& lines) {
  return std::any_of(lines.begin(), lines.end(), [](const std::string& line) {
    return line.find("keyring") != std::string::npos || line.find("master key") != std::string::npos ||
           line.find("Failed to decrypt") != std::string::npos || line.find("encryption key") != std::string::npos;
  });
}

Error tool_error(const std::string& doing, const std::string& why, std::vector<std::string> lines,
                 const std::string& hint) {
  // It repeats the options of a key plugin, and one of them may be the key of the keys.
  lines.erase(
      std::remove_if(lines.begin(), lines.end(),
                     [](const std::string& line) { return line.find("plugin parameter") != std::string::npos; }),
      lines.end());
  std::string message = doing + ": " + why;
  for (std::size_t i = lines.size() > kLinesShown ? lines.size() - kLinesShown : 0; i < lines.size(); ++i)
    message += " | " + printable(lines[i], kShownOfLine);
  if (mentions_full_disk(lines)) {
    return Error(Code::resource_exhausted, message,
                 "free space there, or set mysql.staging_dir to a larger file system");
  }
  if (mentions_keys(lines)) {
    return Error(Code::failed_precondition, message,
                 "the copy has encrypted tables: this host needs the source's keyring, with the same keys and where "
                 "the copy expects it");
  }
  return Error(Code::internal, message, hint);
}

// All of `data` to the child, however slowly it reads; false when it no longer does.
bool feed(int fd, Bytes data, JobContext& job) {
  while (!data.empty()) {
    const ssize_t n = ::write(fd, data.data(), data.size());
    if (n >= 0) {
      data = data.subspan(static_cast<std::size_t>(n));
      continue;
    }
    if (errno == EPIPE) return false;
    if (errno == EINTR) continue;
    if (errno != EAGAIN) throw system_error("feeding the extract tool", errno);
    job.check_cancelled();
    pollfd room{fd, POLLOUT, 0};
    ::poll(&room, 1, 200);
  }
  return true;
}

// All extractors know these options. One thread only: with more, they fail by chance on a perfect stream.
std::vector<std::string> extract_argv(const std::string& program, const fs::path& dir) {
  return {program, "-x", "-C", dir.string()};
}

std::string more_than_one(std::size_t count) {
  return count > 1 ? " and " + std::to_string(count - 1) + " more" : "";
}

std::string first_tool(const std::vector<std::string>& names, const MysqlSettings& settings) {
  for (std::size_t i = 0; i + 1 < names.size(); ++i) {
    try {
      return tool_path(settings, names[i]);
    } catch (const Error& e) {
      if (e.code() != Code::failed_precondition) throw;
    }
  }
  return tool_path(settings, names.back());
}

// What works on bytes from outside has no more rights than the server that will run on them.
ChildSpec as_server(std::vector<std::string> argv, const HeldDir& dir, const MysqlSettings& settings) {
  dir.require_stands();
  ChildSpec spec;
  spec.argv = std::move(argv);
  spec.run_as = server_user(settings);
  spec.working_dir = dir.path().string();
  return spec;
}

Child start_as_server(ChildSpec spec, const MysqlSettings& settings) {
  try {
    return Child(std::move(spec));
  } catch (const Error& e) {
    if (e.code() != Code::permission_denied) throw;
    throw Error(e.code(), e.what(),
                "the tool runs as " + settings.os_user +
                    " (mysql.os_user), who must be able to run it and to pass through all directories "
                    "above the one that it works in (chmod o+x)");
  }
}

// Refuses a name before the tool has the chunk.
class NameGuard : public XbstreamFiles::Watcher {
 public:
  void path(std::string_view path) override {
    if (path == last_) return;
    check_copy_name(path);
    last_ = path;
  }

 private:
  std::string last_;
};

// The lines in which a tool tells of a failure, the first of them.
class BadLines {
 public:
  void hear(std::string_view line) {
    constexpr std::array<std::string_view, 3> bad = {"rror", "an't", "ailed"};
    const bool is_bad = std::any_of(bad.begin(), bad.end(),
                                    [&](std::string_view word) { return line.find(word) != std::string_view::npos; });
    const std::lock_guard lock(mutex_);
    if (is_bad && lines_.size() < kLinesShown) lines_.push_back(printable(line, kShownOfLine));
  }
  std::vector<std::string> get() const {
    const std::lock_guard lock(mutex_);
    return lines_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
};

Error not_xbstream() {
  return Error(Code::data_loss, "extracting the copy: the stream is not of the xbstream format, or is cut",
               "take the snapshot again");
}

void extract(ByteSource& stream, const std::string& format, const HeldDir& dir, const MysqlSettings& settings,
             JobContext& job) {
  BadLines bad;
  ChildSpec spec =
      as_server(extract_argv(first_tool(receive_tools(format, settings).extract, settings), dir.path()), dir, settings);
  spec.pipe_stdin = true;
  spec.on_line = [&](std::string_view line) { bad.hear(line); };
  const std::string doing = "extracting the copy by " + spec.argv[0];
  Child tool = start_as_server(std::move(spec), settings);
  const NoBrokenPipeSignal quiet;
  const int in = tool.stdin_fd();
  ::fcntl(in, F_SETPIPE_SZ, static_cast<int>(kBlock));
  if (::fcntl(in, F_SETFL, ::fcntl(in, F_GETFL) | O_NONBLOCK) != 0) throw system_error(doing, errno);

  NameGuard guard;
  // Whose chunks they are is what the tool takes them for: MariaDB's may also move and remove files, wherever their
  // paths lead.
  const bool mariadb = fs::path(doing).filename() == "mbstream";
  XbstreamFiles names({}, mariadb ? XbstreamFiles::Maker::mariadb : XbstreamFiles::Maker::percona, &guard);
  std::vector<std::byte> block(kBlock);
  bool reads = true;
  while (reads) {
    job.check_cancelled();
    const std::size_t n = stream.read(block);
    if (n == 0) break;
    names.see(Bytes(block).first(n));
    if (names.lost()) throw not_xbstream();
    reads = feed(in, Bytes(block).first(n), job);
  }
  if (reads && !names.at_boundary()) throw not_xbstream();
  tool.close_stdin();
  const Child::Exit exit = tool.wait(job.stop_token());
  if (!reads || !exit.ok()) {
    throw tool_error(doing, reads ? exit.describe() : "it stopped reading (" + exit.describe() + ")", tool.last_lines(),
                     "see whether that tool fits the snapshot's (get_info shows the tools)");
  }
  // It can fail to write a file and still end with 0; then it says so.
  const std::vector<std::string> failures = bad.get();
  if (!failures.empty()) throw tool_error(doing, "it ended with 0, but it said", failures, "");
  for (const std::string& line : tool.last_lines()) job.warn(doing + ": " + line);
  dir.require_stands();
}

// Names of any server's tool: the copy tells which it was.
template <typename Member>
std::vector<std::string_view> info_names(Member member) {
  std::vector<std::string_view> names;
  for (const Dialect& dialect : dialects()) {
    for (const std::string_view name : dialect.*member) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  return names;
}

template <typename Member>
std::string info_file(const HeldDir& dir, Member member) {
  std::string names;
  for (const std::string_view name : info_names(member)) {
    if (dir.has(name)) return std::string(name);
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  throw Error(Code::data_loss, "checking the extracted copy: none of " + names + " is in it",
              "take the snapshot again");
}

// What is left of it after all, whoever put it there. Prepare would follow a link, or what an .isl file says, to
// wherever it leads: on the source's own host, into the source's live data.
void check_entries(const HeldDir& dir) {
  dir.walk([&](const HeldDir::Entry& entry) {
    if (S_ISLNK(entry.info.st_mode) || entry.path.extension() == ".isl") {
      throw Error(Code::failed_precondition,
                  "checking the extracted copy: " + printable(entry.path.string(), 120) +
                      ": it leads to a table outside of the data directory",
                  "on the source, move tables with DATA DIRECTORY into the data directory and take the snapshot again");
    }
    check_copy_name(entry.path.string());
    check_copy_mode(entry.path.string(), entry.info.st_mode);
    if (S_ISDIR(entry.info.st_mode) || (S_ISREG(entry.info.st_mode) && entry.info.st_nlink == 1)) return;
    throw Error(
        Code::data_loss,
        "checking the extracted copy: " + printable(entry.path.string(), 120) + ": it is no plain file of its own",
        "take the snapshot again");
  });
}

// Every table with the files of its engine: what the tool itself does not see.
void check_tables(const HeldDir& dir) {
  TableFiles tables;
  dir.walk([&](const HeldDir::Entry& entry) {
    if (!S_ISREG(entry.info.st_mode)) return;
    const std::string path = entry.path.string();
    if (entry.path.extension() == ".sdi") {
      tables.describe(path, dir.read(entry.path, kLargestDescription));
    } else if (TableFiles::wants_data(path)) {
      tables.data(path, 0, dir.read_head(entry.path, TableFiles::kHead));
    }
    tables.end(path);
  });
  const std::vector<std::string> lacking = tables.lacking();
  if (lacking.empty()) return;
  throw Error(Code::data_loss,
              "checking the extracted copy: table " + lacking.front() + more_than_one(lacking.size()) +
                  ": its definition is in the copy, and its data is not",
              "tables were renamed or made while the copy ran: take the snapshot again when none are");
}

ToolInfo check_whole(const HeldDir& dir) {
  check_entries(dir);
  const std::string info_name = info_file(dir, &Dialect::info_files);
  const ToolInfo info = parse_tool_info(dir.read(info_name), info_name);
  const auto refuse = [&](const std::string& what) {
    throw Error(Code::failed_precondition, "checking the extracted copy: " + info_name + ": it is " + what,
                "only a full, plain copy makes a replica: take the snapshot again");
  };
  if (info.partial) refuse("partial");
  if (info.incremental) refuse("incremental");
  if (info.compact) refuse("compact");
  if (info.compressed) refuse("compressed by the tool");
  if (info.encrypted) refuse("encrypted by the tool");
  const std::string checkpoints_name = info_file(dir, &Dialect::checkpoints_files);
  const ToolCheckpoints checkpoints = parse_checkpoints(dir.read(checkpoints_name), checkpoints_name);
  if (checkpoints.backup_type != "full-backuped") refuse("of type " + checkpoints.backup_type + ", not full-backuped");
  check_tables(dir);
  return info;
}

std::uint64_t redo_in(const HeldDir& dir) {
  std::uint64_t sum = 0;
  dir.walk([&](const HeldDir::Entry& entry) {
    const std::string name = entry.path.string();
    if (S_ISREG(entry.info.st_mode) && (name.starts_with("ib_logfile") || name == "xtrabackup_logfile")) {
      sum += static_cast<std::uint64_t>(entry.info.st_size);
    }
  });
  return sum;
}

// Of a keyring component: this host's own in the copy's place.
void write_component_options(const HeldDir& dir, const std::string& name, const MysqlSettings& settings) {
  const std::string own = name.substr(std::string_view("xtrabackup_").size());
  const std::string plugins = own_plugin_dir(settings);
  for (const fs::path& place : {settings.data_dir / own, fs::path(plugins) / own}) {
    std::error_code ignored;
    if (!fs::exists(place, ignored)) continue;
    dir.write(name, read_file(place), 0600, server_user(settings));
    return;
  }
  throw Error(Code::failed_precondition,
              "preparing the copy: it keeps its tables' keys by a keyring component, and there is no " + own + " in " +
                  settings.data_dir.string() + " or " + plugins,
              "configure that component on this host, with the source's keys");
}

// The options that come with a copy are not obeyed: they are read, and written anew.
CopyOptions write_own_options(const HeldDir& dir, bool mariadb, const MysqlSettings& settings, JobContext& job) {
  std::vector<std::string> components;
  dir.walk([&](const HeldDir::Entry& entry) {
    if (is_component_options(entry.path.string())) components.push_back(entry.path.string());
  });
  for (const std::string& name : components) write_component_options(dir, name, settings);
  const std::string file(kCopyOptionsFile);
  if (!dir.has(file))
    throw Error(Code::data_loss, "preparing the copy: " + file + " is not in it", "take the snapshot again");
  CopyOptions options = read_copy_options(dir.read(file));
  for (const std::string& name : options.dropped)
    job.warn("the copy's " + file + ": " + name + ": left out, since no preparing needs it");
  dir.write(file, write_copy_options(options, mariadb, settings), 0600, server_user(settings));
  return options;
}

void prepare(const HeldDir& dir, const ToolInfo& info, const MysqlSettings& settings, JobContext& job) {
  const std::uint64_t redo = redo_in(dir);
  const bool mariadb = info.tool_name.find("xtrabackup") == std::string::npos;
  const std::string name = mariadb ? "mariadb-backup" : "xtrabackup";
  if (const auto tool = find_tool(settings, name)) {
    const std::string misfit = prepare_misfit(*tool, parse_server_version(info.server_version, ""));
    if (!misfit.empty()) {
      throw Error(Code::failed_precondition, "preparing the copy: " + misfit,
                  "the copy was taken by " + info.tool_name + " " + info.tool_version);
    }
  }
  CopyOptions options = write_own_options(dir, mariadb, settings, job);
  // Without an option of that kind, and only then, it reads the backup-my.cnf beside the data: page size, log format,
  // undo.
  ChildSpec spec = as_server({tool_path(settings, name), "--prepare", "--target-dir=" + dir.path().string(),
                              "--use-memory=" + std::to_string(prepare_memory(settings, redo))},
                             dir, settings);
  const std::string doing = "preparing the copy by " + spec.argv[0];
  Child tool = start_as_server(std::move(spec), settings);
  const Child::Exit exit = tool.wait(job.stop_token());
  dir.require_stands();
  if (!options.key_plugin.empty()) {
    // This host's keys, or where they are, do not stay with the data.
    options.key_plugin.clear();
    dir.write(std::string(kCopyOptionsFile), write_copy_options(options, mariadb, settings), 0600,
              server_user(settings));
  }
  std::vector<std::string> lines = tool.last_lines();
  while (!lines.empty() && lines.back().find_first_not_of(" \t\r") == std::string::npos) lines.pop_back();
  if (!exit.ok())
    throw tool_error(doing, exit.describe(), lines,
                     "the running server was not touched; take the snapshot again, or see whether the tool fits");
  if (lines.empty() || !says_completed(lines.back())) {
    throw tool_error(doing, "it did not say that it completed", lines, "the running server was not touched");
  }
  // A newer tool may call its file otherwise than the one that took the copy, whose file then stays as it was.
  std::string says;
  for (const std::string_view file : info_names(&Dialect::checkpoints_files)) {
    if (!dir.has(file)) continue;
    says = parse_checkpoints(dir.read(file), file).backup_type;
    if (says == "full-prepared" || says == "log-applied") return;
  }
  throw tool_error(doing, "the copy is still of type " + says + " afterwards", lines, "");
}

// Owner, mode and security context as the server's own files have: what it could not read would fail it after the
// switch.
void give_all(const HeldDir& dir, const MysqlSettings& settings) {
  const auto user = server_user(settings);
  std::array<char, 256> context{};
  const ssize_t context_size =
      ::lgetxattr(settings.data_dir.c_str(), "security.selinux", context.data(), context.size());
  const auto give = [&](int fd, mode_t mode, const fs::path& shown) {
    if (user && ::fchown(fd, user->first, user->second) != 0)
      throw system_error("setting the owner of " + shown.string(), errno);
    if (mode != 0 && ::fchmod(fd, mode) != 0) throw system_error("setting the mode of " + shown.string(), errno);
    if (context_size > 0 &&
        ::fsetxattr(fd, "security.selinux", context.data(), static_cast<std::size_t>(context_size), 0) != 0) {
      throw system_error("setting the security context of " + shown.string(), errno);
    }
  };
  dir.walk([&](const HeldDir::Entry& entry) {
    const fs::path shown = dir.path() / entry.path;
    const UniqueFd fd(
        ::openat(entry.parent, entry.name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    struct stat info {};
    if (!fd || ::fstat(fd.get(), &info) != 0) throw system_error("setting the owner of " + shown.string(), errno);
    // A second name of a file that is somewhere else: giving it would give that file.
    if (!S_ISDIR(info.st_mode) && (!S_ISREG(info.st_mode) || info.st_nlink != 1)) {
      throw Error(Code::failed_precondition,
                  "setting the owner of " + shown.string() + ": it is no plain file of its own");
    }
    give(fd.get(), S_ISDIR(info.st_mode) ? 0700 : 0660, shown);
  });
  give(dir.fd(), dir.info().st_mode & 07777, dir.path());
}

// For the time of the work the directory is its worker's alone.
void take_over(const HeldDir& dir, const std::optional<std::pair<uid_t, gid_t>>& worker) {
  if (::geteuid() == 0) dir.give(worker ? worker->first : 0, worker ? worker->second : 0, 0700);
}

// The options that make a server that server are never taken from a copy.
void drop_identity(const HeldDir& dir) {
  for (const char* name : {"auto.cnf", "mysqld-auto.cnf"}) {
    if (::unlinkat(dir.fd(), name, 0) != 0 && errno != ENOENT)
      throw system_error("removing " + (dir.path() / name).string(), errno);
  }
}

void receive_into(ByteSource& stream, const std::string& format, const HeldDir& dir, const MysqlSettings& settings,
                  JobContext& job) {
  if (format == kCloneFormat) {
    // It needs no preparing, and no tool.
    take_over(dir, std::nullopt);
    unpack_clone(stream, dir.path(), job);
    check_entries(dir);
  } else {
    take_over(dir, server_user(settings));
    extract(stream, format, dir, settings, job);
    drop_identity(dir);
    const ToolInfo info = check_whole(dir);
    job.phase("prepare");
    prepare(dir, info, settings, job);
    check_entries(dir);
  }
  job.check_cancelled();
  dir.require_stands();
  give_all(dir, settings);
  dir.sync();
  dir.require_stands();
}

}  // namespace

std::string tool_path(const MysqlSettings& settings, const std::string& name) {
  if (const auto path = find_tool_path(settings, name)) return path->string();
  const std::string where = settings.tools_dir.empty() ? "on PATH" : "in " + settings.tools_dir.string();
  throw Error(
      Code::failed_precondition, "looking for the tool " + name + ": there is none " + where,
      "install it (the package mariadb-backup or percona-xtrabackup of the server's version), or set mysql.tools_dir");
}

ReceiveTools receive_tools(const std::string& format, const MysqlSettings& settings) {
  if (format == kCloneFormat) return {};
  if (format != "xbstream") {
    throw Error(Code::failed_precondition,
                "receiving the copy: format " + format + ": this agent knows xbstream and tar",
                "use an agent of the snapshot's version");
  }
  if (settings.backup_tool == "xtrabackup") return {{"xbstream"}, {"xtrabackup"}};
  if (settings.backup_tool == "mariadb-backup") return {{"mbstream"}, {"mariadb-backup"}};
  // A host of MySQL may have MariaDB's client tools, and the other way round.
  if (fs::path(settings.server.command.at(0)).filename() == "mysqld")
    return {{"xbstream", "mbstream"}, {"xtrabackup", "mariadb-backup"}};
  return {{"mbstream", "xbstream"}, {"mariadb-backup", "xtrabackup"}};
}

std::uint64_t prepare_memory(const MysqlSettings& settings, std::uint64_t redo_bytes) {
  if (settings.prepare_memory != 0) return settings.prepare_memory;
  // Records to apply take more room than they have in the log; below the tool's own default nothing is won.
  const std::uint64_t wanted = 128 * kMiB + redo_bytes * 2;
  return std::clamp(wanted, 128 * kMiB, std::max(128 * kMiB, available_memory() / 2));
}

void receive_copy(ByteSource& stream, const std::string& format, const fs::path& dir, const MysqlSettings& settings,
                  JobContext& job) {
  std::error_code ec;
  if (!fs::exists(dir, ec)) make_dir(dir, 0700);
  const auto refuse = [&] {
    return Error(Code::failed_precondition, "receiving the copy: " + dir.string() + ": not an empty directory",
                 "name an empty or a new directory");
  };
  if (!fs::is_directory(fs::symlink_status(dir, ec)) || ec) throw refuse();
  const HeldDir held(dir);
  if (!held.empty()) throw refuse();
  server_user(settings);  // or it throws, before the long work
  try {
    receive_into(stream, format, held, settings, job);
  } catch (const std::exception& failure) {
    try {
      held.clear();
      held.give(held.info().st_uid, held.info().st_gid, held.info().st_mode & 07777);
    } catch (const Error& e) {
      job.warn(e.what());
    }
    throw;
  }
}

}  // namespace guestagent::mysql

#include "strategies/mysql/receive.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/child.h"
#include "base/error.h"
#include "base/memory.h"
#include "config/units.h"
#include "strategies/mysql/backup_tools.h"
#include "strategies/mysql/clone_copy.h"
#include "strategies/mysql/dialect.h"
#include "strategies/mysql/server_control.h"
#include "strategies/mysql/tool_info.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kBlock = std::size_t{1} << 20;

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

Error tool_error(const std::string& doing, const std::string& why, const std::vector<std::string>& lines, const std::string& hint) {
  std::string message = doing + ": " + why;
  for (const std::string& line : lines) message += " | " + line;
  if (mentions_full_disk(lines)) {
    return Error(Code::resource_exhausted, message, "free space there, or set mysql.staging_dir to a larger file system");
  }
  if (mentions_keys(lines)) {
    return Error(Code::failed_precondition, message,
                 "the copy has encrypted tables: this host needs the source's keyring, with the same keys and where the copy expects it");
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

// The extractors of one stream: all read what the old series of either family wrote.
std::vector<std::string> extract_argv(const std::string& program, const fs::path& dir, const MysqlSettings& settings) {
  std::vector<std::string> argv = {program, "-x"};
  const std::string threads = std::to_string(std::max(1U, settings.backup_parallel));
  if (fs::path(program).filename() == "mbstream") {
    argv.insert(argv.end(), {"-p", threads});
  } else if (const auto tool = find_tool(settings, "xtrabackup"); tool && !tool->version.starts_with("2.")) {
    argv.push_back("--parallel=" + threads);  // not every 2.x knows it
  }
  argv.insert(argv.end(), {"-C", dir.string()});
  return argv;
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

void extract(ByteSource& stream, const std::string& format, const fs::path& dir, const MysqlSettings& settings, JobContext& job) {
  ChildSpec spec;
  spec.argv = extract_argv(first_tool(receive_tools(format, settings).extract, settings), dir, settings);
  spec.pipe_stdin = true;
  const std::string doing = "extracting the copy by " + spec.argv[0];
  Child tool(spec);
  const NoBrokenPipeSignal quiet;
  const int in = tool.stdin_fd();
  ::fcntl(in, F_SETPIPE_SZ, static_cast<int>(kBlock));
  if (::fcntl(in, F_SETFL, ::fcntl(in, F_GETFL) | O_NONBLOCK) != 0) throw system_error(doing, errno);

  std::vector<std::byte> block(kBlock);
  bool reads = true;
  while (reads) {
    job.check_cancelled();
    const std::size_t n = stream.read(block);
    if (n == 0) break;
    reads = feed(in, Bytes(block).first(n), job);
  }
  tool.close_stdin();
  const Child::Exit exit = tool.wait(job.stop_token());
  if (!reads || !exit.ok()) {
    throw tool_error(doing, reads ? exit.describe() : "it stopped reading (" + exit.describe() + ")", tool.last_lines(),
                     "see whether that tool fits the snapshot's (get_info shows the tools)");
  }
  // It can fail to write a file and still end with 0; then it says so.
  const std::vector<std::string> said = tool.last_lines();
  for (const std::string& line : said) {
    if (line.find("rror") != std::string::npos || line.find("an't") != std::string::npos || line.find("ailed") != std::string::npos) {
      throw tool_error(doing, "it ended with 0, but it said", said, "");
    }
    job.warn(doing + ": " + line);
  }
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
fs::path info_file(const fs::path& dir, Member member) {
  return find_info_file(dir, info_names(member));
}

// Prepare would follow such a file to wherever it leads: on the source's own host, into the source's live data.
void refuse_tables_elsewhere(const fs::path& dir) {
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (!entry.is_symlink() && entry.path().extension() != ".isl") continue;
    throw Error(Code::failed_precondition, "checking the extracted copy: " + entry.path().lexically_relative(dir).string() +
                                               ": it leads to a table outside of the data directory",
                "on the source, move tables with DATA DIRECTORY into the data directory and take the snapshot again");
  }
}

ToolInfo check_whole(const fs::path& dir) {
  refuse_tables_elsewhere(dir);
  const fs::path info_path = info_file(dir, &Dialect::info_files);
  const ToolInfo info = parse_tool_info(read_file(info_path), info_path.filename().string());
  const auto refuse = [&](const std::string& what) {
    throw Error(Code::failed_precondition, "checking the extracted copy: " + info_path.filename().string() + ": it is " + what,
                "only a full, plain copy makes a replica: take the snapshot again");
  };
  if (info.partial) refuse("partial");
  if (info.incremental) refuse("incremental");
  if (info.compact) refuse("compact");
  if (info.compressed) refuse("compressed by the tool");
  if (info.encrypted) refuse("encrypted by the tool");
  const fs::path checkpoints_path = info_file(dir, &Dialect::checkpoints_files);
  const ToolCheckpoints checkpoints = parse_checkpoints(read_file(checkpoints_path), checkpoints_path.filename().string());
  if (checkpoints.backup_type != "full-backuped") refuse("of type " + checkpoints.backup_type + ", not full-backuped");
  return info;
}

std::uint64_t redo_in(const fs::path& dir) {
  std::uint64_t sum = 0;
  for (const auto& entry : fs::directory_iterator(dir)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && (name.starts_with("ib_logfile") || name == "xtrabackup_logfile")) sum += entry.file_size();
  }
  return sum;
}

void prepare(const fs::path& dir, const ToolInfo& info, const MysqlSettings& settings, JobContext& job) {
  const std::uint64_t redo = redo_in(dir);
  const bool mariadb = info.tool_name.find("xtrabackup") == std::string::npos;
  const std::string name = mariadb ? "mariadb-backup" : "xtrabackup";
  ChildSpec spec;
  // Without an option of that kind, and only then, it reads the copy's own backup-my.cnf: page size, log format, undo.
  spec.argv = {tool_path(settings, name), "--prepare", "--target-dir=" + dir.string(),
               "--use-memory=" + std::to_string(prepare_memory(settings, redo))};
  if (const auto tool = find_tool(settings, name)) {
    const std::string misfit = prepare_misfit(*tool, parse_server_version(info.server_version, ""));
    if (!misfit.empty()) {
      throw Error(Code::failed_precondition, "preparing the copy: " + misfit, "the copy was taken by " + info.tool_name + " " + info.tool_version);
    }
  }
  const std::string doing = "preparing the copy by " + spec.argv[0];
  Child tool(spec);
  const Child::Exit exit = tool.wait(job.stop_token());
  std::vector<std::string> lines = tool.last_lines();
  while (!lines.empty() && lines.back().find_first_not_of(" \t\r") == std::string::npos) lines.pop_back();
  if (!exit.ok()) throw tool_error(doing, exit.describe(), lines, "the running server was not touched; take the snapshot again, or see whether the tool fits");
  if (lines.empty() || !says_completed(lines.back())) {
    throw tool_error(doing, "it did not say that it completed", lines, "the running server was not touched");
  }
  // A newer tool may call its file otherwise than the one that took the copy, whose file then stays as it was.
  std::string says;
  for (const std::string_view file : info_names(&Dialect::checkpoints_files)) {
    if (!fs::exists(dir / file)) continue;
    says = parse_checkpoints(read_file(dir / file), file).backup_type;
    if (says == "full-prepared" || says == "log-applied") return;
  }
  throw tool_error(doing, "the copy is still of type " + says + " afterwards", lines, "");
}

void make_empty(const fs::path& dir) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(dir)) found.push_back(entry.path());
  for (const fs::path& path : found) remove_tree(path);
}

}  // namespace

std::string tool_path(const MysqlSettings& settings, const std::string& name) {
  if (const auto path = find_tool_path(settings, name)) return path->string();
  const std::string where = settings.tools_dir.empty() ? "on PATH" : "in " + settings.tools_dir.string();
  throw Error(Code::failed_precondition, "looking for the tool " + name + ": there is none " + where,
              "install it (the package mariadb-backup or percona-xtrabackup of the server's version), or set mysql.tools_dir");
}

ReceiveTools receive_tools(const std::string& format, const MysqlSettings& settings) {
  if (format == kCloneFormat) return {};
  if (format != "xbstream") {
    throw Error(Code::failed_precondition, "receiving the copy: format " + format + ": this agent knows xbstream and tar",
                "use an agent of the snapshot's version");
  }
  if (settings.backup_tool == "xtrabackup") return {{"xbstream"}, {"xtrabackup"}};
  if (settings.backup_tool == "mariadb-backup") return {{"mbstream"}, {"mariadb-backup"}};
  // A host of MySQL may have MariaDB's client tools, and the other way round.
  if (fs::path(settings.server.command.at(0)).filename() == "mysqld") return {{"xbstream", "mbstream"}, {"xtrabackup", "mariadb-backup"}};
  return {{"mbstream", "xbstream"}, {"mariadb-backup", "xtrabackup"}};
}

std::uint64_t prepare_memory(const MysqlSettings& settings, std::uint64_t redo_bytes) {
  if (settings.prepare_memory != 0) return settings.prepare_memory;
  // Records to apply take more room than they have in the log; below the tool's own default nothing is won.
  const std::uint64_t wanted = 128 * kMiB + redo_bytes * 2;
  return std::clamp(wanted, 128 * kMiB, std::max(128 * kMiB, available_memory() / 2));
}

void give_to_server(const fs::path& dir, const MysqlSettings& settings) {
  const auto user = server_user(settings);
  std::array<char, 256> context{};
  const ssize_t context_size = ::lgetxattr(settings.data_dir.c_str(), "security.selinux", context.data(), context.size());
  const auto give = [&](const fs::path& path, mode_t mode) {
    if (user && ::lchown(path.c_str(), user->first, user->second) != 0) throw system_error("setting the owner of " + path.string(), errno);
    if (mode != 0 && ::chmod(path.c_str(), mode) != 0) throw system_error("setting the mode of " + path.string(), errno);
    if (context_size > 0 && ::lsetxattr(path.c_str(), "security.selinux", context.data(), static_cast<std::size_t>(context_size), 0) != 0) {
      throw system_error("setting the security context of " + path.string(), errno);
    }
  };
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    give(entry.path(), entry.is_directory() ? 0700 : 0660);
  }
  give(dir, 0);
}

void receive_copy(ByteSource& stream, const std::string& format, const fs::path& dir, const MysqlSettings& settings, JobContext& job) {
  std::error_code ec;
  if (!fs::exists(dir, ec)) make_dir(dir, 0700);
  if (!fs::is_directory(dir, ec) || !fs::is_empty(dir, ec) || ec) {
    throw Error(Code::failed_precondition, "receiving the copy: " + dir.string() + ": not an empty directory", "name an empty or a new directory");
  }
  server_user(settings);  // or it throws, before the long work
  try {
    if (format == kCloneFormat) {
      // It needs no preparing.
      unpack_clone(stream, dir, job);
      refuse_tables_elsewhere(dir);
    } else {
      extract(stream, format, dir, settings, job);
      const ToolInfo info = check_whole(dir);
      job.phase("prepare");
      prepare(dir, info, settings, job);
    }
    job.check_cancelled();
    give_to_server(dir, settings);
    fsync_tree(dir);
  } catch (const std::exception& failure) {
    try {
      make_empty(dir);
    } catch (const Error& e) {
      job.warn(e.what());
    }
    throw;
  }
}

}  // namespace guestagent::mysql

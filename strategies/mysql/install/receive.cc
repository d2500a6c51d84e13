#include "strategies/mysql/install/receive.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <thread>
#include <utility>

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
#include "strategies/mysql/copy/placed_record.h"
#include "strategies/mysql/copy/ready_record.h"
#include "strategies/mysql/copy/table_files.h"
#include "strategies/mysql/copy/tool_info.h"
#include "strategies/mysql/copy/xbstream_place.h"
#include "strategies/mysql/host/server_control.h"
#include "strategies/mysql/server/dialect.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kLinesShown = 6, kShownOfLine = 300;  // of a tool's words in an error
constexpr std::size_t kLargestDescription = std::size_t{16} << 20;

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

std::string more_than_one(std::size_t count) {
  return count > 1 ? " and " + std::to_string(count - 1) + " more" : "";
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

// Whose chunks they are is what their tool says that it is: MariaDB's may also move and remove files.
XbstreamChunks::Maker maker_of(const std::string& tool) {
  return tool.starts_with("xtrabackup") ? XbstreamChunks::Maker::percona : XbstreamChunks::Maker::mariadb;
}

// More than four only wait for the disk.
unsigned placing_threads() {
  return std::clamp(std::thread::hardware_concurrency(), 1U, 4U);
}

// Answers how many bytes were there.
std::uint64_t extract(PieceSource& stream, const HeldDir& dir, PlacedRecord& record, JobContext& job) {
  const std::uint64_t there = stream.skip(record.placed().pieces);
  XbstreamPlacer placer(dir, maker_of(stream.kind().tool), placing_threads(), record);
  while (std::optional<Piece> piece = stream.next_piece()) {
    job.check_cancelled();
    placer.take(std::move(*piece));
    failpoint("receive:piece");
  }
  placer.finish();
  dir.require_stands();
  return there;
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

// What another try can mend. A full disk is no reason to keep it full.
bool is_worth_going_on(const std::exception& failure) {
  const auto* error = dynamic_cast<const Error*>(&failure);
  return error != nullptr && (error->code() == Code::unavailable || error->code() == Code::deadline_exceeded ||
                              error->code() == Code::permission_denied);
}

// That of an interrupted call, with what it got, or a new one.
PlacedRecord open_record(const HeldDir& dir, const PieceSource::Kind& kind, bool goes_on, JobContext& job) {
  if (goes_on) {
    job.phase("check what is here");
    if (auto found = PlacedRecord::found(dir, kind, job); found && found->placed().pieces > 0) {
      job.phase("fetch");
      return std::move(*found);
    }
    job.phase("fetch");
    dir.clear();
  }
  return PlacedRecord(dir, kind);
}

// The stream's bytes, where the copy can be used as it is; what cannot is cleared away.
std::optional<std::uint64_t> take_ready(PieceSource& stream, const HeldDir& dir, JobContext& job) {
  job.phase("check what is here");
  try {
    check_ready(dir, job);
  } catch (const Error& e) {
    if (e.code() != Code::data_loss) throw;
    job.warn(std::string(e.what()) + ": it is fetched again");
    forget_staged(dir.path());
    dir.clear();
    job.phase("fetch");
    return std::nullopt;
  }
  dir.require_stands();
  return stream.skip(UINT64_MAX);
}

// None but the agent can have put anything into it since.
bool is_the_agents(const struct stat& info) {
  return S_ISDIR(info.st_mode) && info.st_uid == ::geteuid() && (info.st_mode & 0077) == 0;
}

void finish_receiving(const HeldDir& dir, const MysqlSettings& settings, JobContext& job) {
  job.check_cancelled();
  dir.require_stands();
  give_all(dir, settings);
  dir.sync();
  dir.require_stands();
}

void receive_clone(PieceSource& stream, const HeldDir& dir, const MysqlSettings& settings, JobContext& job) {
  // It needs no preparing, and no tool.
  take_over(dir, std::nullopt);
  unpack_clone(stream, dir.path(), job);
  check_entries(dir);
  finish_receiving(dir, settings, job);
}

// While it is extracted the directory is the agent's alone, and only while it is prepared the tool's.
void prepare_extracted(const HeldDir& dir, const MysqlSettings& settings, JobContext& job) {
  drop_identity(dir);
  const ToolInfo info = check_whole(dir);
  give_all(dir, settings);
  take_over(dir, server_user(settings));
  job.phase("prepare");
  prepare(dir, info, settings, job);
  check_entries(dir);
  finish_receiving(dir, settings, job);
}

std::uint64_t receive_xbstream(PieceSource& stream, const HeldDir& dir, bool goes_on, const MysqlSettings& settings,
                               JobContext& job) {
  take_over(dir, std::nullopt);
  PlacedRecord record = open_record(dir, stream.kind(), goes_on, job);
  const std::uint64_t there = extract(stream, dir, record, job);
  // From here on the files change: nobody could go on with them.
  record.close();
  prepare_extracted(dir, settings, job);
  return there;
}

}  // namespace

std::string tool_path(const MysqlSettings& settings, const std::string& name) {
  if (const auto path = find_tool_path(settings, name)) return path->string();
  const std::string where = settings.tools_dir.empty() ? "on PATH" : "in " + settings.tools_dir.string();
  throw Error(
      Code::failed_precondition, "looking for the tool " + name + ": there is none " + where,
      "install it (the package mariadb-backup or percona-xtrabackup of the server's version), or set mysql.tools_dir");
}

void require_known_format(const std::string& format) {
  if (format == "xbstream" || format == kCloneFormat) return;
  throw Error(Code::failed_precondition, "receiving the copy: format " + format + ": this agent knows xbstream and tar",
              "use an agent of the snapshot's version");
}

std::uint64_t prepare_memory(const MysqlSettings& settings, std::uint64_t redo_bytes) {
  if (settings.prepare_memory != 0) return settings.prepare_memory;
  // Records to apply take more room than they have in the log; below the tool's own default nothing is won.
  const std::uint64_t wanted = 128 * kMiB + redo_bytes * 2;
  return std::clamp(wanted, 128 * kMiB, std::max(128 * kMiB, available_memory() / 2));
}

void keep_ready(const fs::path& dir, const PieceSource::Kind& kind, JobContext& job) {
  const HeldDir held(dir);
  take_over(held, std::nullopt);
  write_ready(held, kind, job);
}

bool is_staged_for(const fs::path& dir, const PieceSource::Kind& kind) {
  struct stat info {};
  if (::lstat(dir.c_str(), &info) != 0 || !is_the_agents(info)) return false;
  return PlacedRecord::is_for(dir, kind) || is_ready_for(dir, kind);
}

bool is_staged(const fs::path& dir) {
  std::error_code ec;
  return fs::exists(PlacedRecord::path_of(dir), ec) || fs::exists(ready_record_path(dir), ec);
}

void forget_staged(const fs::path& dir) {
  PlacedRecord::forget(dir);
  if (::unlink(ready_record_path(dir).c_str()) != 0 && errno != ENOENT)
    throw system_error("removing " + ready_record_path(dir).string(), errno);
}

std::uint64_t receive_copy(PieceSource& stream, const fs::path& dir, const MysqlSettings& settings, JobContext& job) {
  require_known_format(stream.kind().format);
  std::error_code ec;
  if (!fs::exists(dir, ec)) make_dir(dir, 0700);
  const auto refuse = [&] {
    return Error(Code::failed_precondition, "receiving the copy: " + dir.string() + ": not an empty directory",
                 "name an empty or a new directory");
  };
  if (!fs::is_directory(fs::symlink_status(dir, ec)) || ec) throw refuse();
  const HeldDir held(dir);
  const bool goes_on = is_the_agents(held.info()) && PlacedRecord::is_for(dir, stream.kind());
  const bool is_ready = is_the_agents(held.info()) && is_ready_for(dir, stream.kind());
  if (!goes_on && !is_ready && !held.empty()) throw refuse();
  server_user(settings);  // or it throws, before the long work
  try {
    if (is_ready) {
      if (const auto there = take_ready(stream, held, job)) return *there;
    }
    if (stream.kind().format != kCloneFormat) return receive_xbstream(stream, held, goes_on, settings, job);
    receive_clone(stream, held, settings, job);
    return 0;
  } catch (const std::exception& failure) {
    try {
      if (is_worth_going_on(failure) && PlacedRecord::is_for(dir, stream.kind())) {
        job.warn("what was fetched stays in " + dir.string() + ": the same call goes on from there");
      } else {
        forget_staged(dir);
        held.clear();
        held.give(held.info().st_uid, held.info().st_gid, held.info().st_mode & 07777);
      }
    } catch (const Error& e) {
      job.warn(e.what());
    }
    throw;
  }
}

}  // namespace guestagent::mysql

#include "strategies/mysql/host/option_file.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <sstream>

#include "base/error.h"
#include "base/json.h"
#include "strategies/mysql/host/replica_options.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kHeader =
    "# Written by guestagent, which replaces it whole: put options of your own in another file.\n";
constexpr std::string_view kMemory = "# guestagent: ";

// What the text alone does not tell, as a comment in it: one file, so that the two cannot disagree.
std::string memory_line(const ManagedOptions& options) {
  JsonWriter out;
  out.begin_object()
      .member("role", to_string(options.role))
      .member("server_id", static_cast<std::uint64_t>(options.server_id))
      .member("read_only", options.read_only);
  if (options.scheduler_before) out.member("scheduler_before", *options.scheduler_before);
  out.member("report_host", options.report_host)
      .member("report_port", static_cast<std::uint64_t>(options.report_port))
      .member("log_bin", options.log_bin)
      .member("relay_log", options.relay_log)
      .member("mysql_gtid", options.mysql_gtid)
      .member("mixed_binlog", options.mixed_binlog)
      .member("hidden_dir", options.hidden_dir)
      .end_object();
  return std::string(kMemory) + out.text() + "\n";
}

std::string quoted(const std::string& value) {
  if (value.find_first_of("\n\r\"") != std::string::npos) {
    throw Error(Code::invalid_argument, "writing the managed option file: a value has a line break or a quote");
  }
  std::string escaped;
  for (const char c : value) escaped += c == '\\' ? "\\\\" : std::string(1, c);
  return "\"" + escaped + "\"";
}

// What write_managed sets and no other file may set after it. Base names of logs are not here: whichever wins is good,
// and whether the binary log is on is asked of the running server.
constexpr std::array<std::string_view, 8> kOurs = {"server_id",       "read_only",         "super_read_only",
                                                   "event_scheduler", "log_slave_updates", "log_replica_updates",
                                                   "gtid_mode",       "report_host"};

std::string option_name(std::string_view argument) {
  std::string name(argument.substr(
      2, argument.find('=') == std::string_view::npos ? std::string_view::npos : argument.find('=') - 2));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

// In a replica's file alone.
constexpr std::array<std::string_view, 2> kReplicasOwn = {"skip_slave_start", "skip_replica_start"};

bool is_ours(const std::string& name, bool replica) {
  return std::find(kOurs.begin(), kOurs.end(), name) != kOurs.end() ||
         (replica && std::find(kReplicasOwn.begin(), kReplicasOwn.end(), name) != kReplicasOwn.end());
}

Check passed(std::string message) {
  return {"option file", Check::Result::ok, std::move(message), "", Code::failed_precondition};
}
Check failed(std::string message, std::string hint) {
  return {"option file", Check::Result::failed, std::move(message), std::move(hint), Code::failed_precondition};
}

bool same_path(const fs::path& a, const fs::path& b) {
  std::error_code ec;
  return fs::weakly_canonical(a, ec) == fs::weakly_canonical(b, ec);
}

const std::string kMoveHint =
    "set mysql.managed_file to a file that the server reads last of all (in the last directory that its option file "
    "includes)";

Check command_check(const MysqlSettings& settings, bool replica) {
  for (const std::string& argument : settings.server.command) {
    if (argument == "--no-defaults") {
      return failed("mysql.server.command: --no-defaults: the server would not read " + settings.managed_file.string(),
                    "take --no-defaults out of mysql.server.command");
    }
    if (argument.starts_with("--defaults-file=") && !same_path(argument.substr(16), settings.defaults_file)) {
      return failed("mysql.server.command: " + argument + ": not the file that mysql.defaults_file names (" +
                        settings.defaults_file.string() + ")",
                    "make both name the server's option file");
    }
    if (argument.starts_with("--") && is_ours(option_name(argument), replica)) {
      return failed("mysql.server.command: " + argument + ": the agent must be able to set that in " +
                        settings.managed_file.string(),
                    "move that option from mysql.server.command to an option file");
    }
  }
  return passed(settings.managed_file.string() + " is read last");
}

}  // namespace

std::string write_managed(const ManagedOptions& options, const Dialect& dialect) {
  const bool replica = options.role == ReplicationRole::replica;
  std::ostringstream out;
  out << kHeader << memory_line(options) << "[mysqld]\n";
  out << "server_id = " << options.server_id << "\n";
  if (options.role != ReplicationRole::source) {
    out << "read_only = " << (options.read_only ? "ON" : "OFF") << "\n";
    if (dialect.super_read_only) out << "super_read_only = " << (options.read_only ? "ON" : "OFF") << "\n";
  }
  if (replica) {
    out << "# Events came with the copy and must not run twice; detach restores what was set before.\n"
        << "event_scheduler = OFF\n"
        << "# A replica goes on after a restart, whatever another file says.\n"
        << dialect.replica_option << " = OFF\n";
    if (options.mixed_binlog) out << "binlog_format = MIXED\n";
    // A copy of a group's member brings the plugin along.
    if (dialect.family != Family::mariadb) out << "loose_group_replication_start_on_boot = OFF\n";
  } else if (options.scheduler_before) {
    out << "event_scheduler = " << (*options.scheduler_before && !options.read_only ? "ON" : "OFF") << "\n";
  }
  if (!options.log_bin.empty()) out << "log_bin = " << quoted(options.log_bin) << "\n";
  if (!options.relay_log.empty()) out << "relay_log = " << quoted(options.relay_log) << "\n";
  out << dialect.log_updates << " = ON\n";
  if (!options.report_host.empty()) out << "report_host = " << quoted(options.report_host) << "\n";
  if (options.report_port != 0) out << "report_port = " << options.report_port << "\n";
  if (options.mysql_gtid) out << "enforce_gtid_consistency = ON\ngtid_mode = ON\n";
  if (!options.hidden_dir.empty() && dialect.family == Family::mariadb) {
    out << "ignore_db_dirs = " << quoted(options.hidden_dir) << "\n";
  }
  return out.str();
}

std::optional<ManagedOptions> read_managed(const fs::path& file) {
  std::string text;
  try {
    text = read_file(file);
  } catch (const Error& e) {
    if (e.code() == Code::not_found) return std::nullopt;
    throw;
  }
  const std::size_t at = text.find(kMemory);
  if (at == std::string::npos) return std::nullopt;
  const std::size_t begin = at + kMemory.size();
  const JsonDocument document = parse_json(text.substr(begin, text.find('\n', begin) - begin), file.string());
  const JsonReader in(document, file.string(), Code::failed_precondition);
  ManagedOptions options;
  options.role = kReplicationRoles.read(in, "role");
  options.server_id = static_cast<std::uint32_t>(in.uint("server_id", 1, UINT32_MAX));
  options.read_only = in.boolean("read_only");
  options.scheduler_before = in.opt_boolean("scheduler_before");
  options.report_host = in.opt_string("report_host").value_or("");
  options.report_port = static_cast<std::uint16_t>(in.opt_uint("report_port", 0, UINT16_MAX).value_or(0));
  options.log_bin = in.opt_string("log_bin").value_or("");
  options.relay_log = in.opt_string("relay_log").value_or("");
  options.mysql_gtid = in.opt_boolean("mysql_gtid").value_or(false);
  options.mixed_binlog = in.opt_boolean("mixed_binlog").value_or(false);
  options.hidden_dir = in.opt_string("hidden_dir").value_or("");
  return options;
}

bool renew_managed(const fs::path& file, const Dialect& dialect) {
  const auto options = read_managed(file);
  if (!options || options->role != ReplicationRole::replica) return false;
  const std::string text = write_managed(*options, dialect);
  if (text == read_file(file)) return false;
  put_managed(file, text);
  return true;
}

std::string guard_text() {
  return std::string(kHeader) +
         "# The server's data is being exchanged. It must not start now: the option below makes it refuse. If no "
         "guestagent job runs,\n"
         "# start the agent (or any changing `guestagent --oneshot` call): it finishes or undoes the exchange and "
         "removes this.\n"
         "[mysqld]\n" +
         std::string(kGuardOption) + " = yes\n";
}

bool guard_stands(const fs::path& file) {
  try {
    return read_file(file).find(kGuardOption) != std::string::npos;
  } catch (const Error& e) {
    if (e.code() == Code::not_found) return false;
    throw;
  }
}

void put_managed(const fs::path& file, const std::optional<std::string>& text) {
  if (text) {
    write_file_atomic(file, *text, 0644);
    return;
  }
  if (::unlink(file.c_str()) != 0 && errno != ENOENT) throw system_error("removing " + file.string(), errno);
  fsync_dir(file.parent_path());
}

std::vector<Check> check_option_files(const MysqlSettings& settings, bool replica) {
  const fs::path& managed = settings.managed_file;
  OptionFiles all;
  try {
    all = read_option_files(settings.defaults_file, managed);
  } catch (const Error& e) {
    return {failed(e.what(), e.hint().empty() ? "check mysql.defaults_file" : e.hint())};
  }
  const auto place =
      std::find_if(all.files.begin(), all.files.end(), [&](const auto& f) { return same_path(f.path, managed); });
  if (place == all.files.end()) {
    return {failed("mysql.managed_file: " + managed.string() +
                       ": the server does not read it: " + settings.defaults_file.string() + " does not include it",
                   "add \"!includedir " + managed.parent_path().string() + "\" as the last line of " +
                       settings.defaults_file.string() + " (only names that end in .cnf are read), or " + kMoveHint)};
  }
  if (::access(managed.parent_path().c_str(), W_OK) != 0) {
    return {failed("mysql.managed_file: " + managed.parent_path().string() + ": the agent may not write there",
                   "run the agent as root or give it that directory")};
  }
  for (std::size_t i = place->first_line; i < all.lines.size(); ++i) {
    const OptionLine& line = all.lines[i];
    if (same_path(line.file, managed) || !is_server_group(line.group) || !is_ours(line.name, replica)) continue;
    return {failed(line.file.string() + " (line " + std::to_string(line.line) + "): " + line.name + ": set after " +
                       managed.string() + ", so the agent's value would not hold",
                   "take it out there, or " + kMoveHint)};
  }
  return {command_check(settings, replica)};
}

std::vector<OptionLine> other_options(const MysqlSettings& settings) {
  std::vector<OptionLine> out;
  for (OptionLine& line : read_option_files(settings.defaults_file, settings.managed_file).lines) {
    if (is_server_group(line.group) && !same_path(line.file, settings.managed_file)) out.push_back(std::move(line));
  }
  for (OptionLine& line : options_of(settings.server.command, "mysql.server.command")) out.push_back(std::move(line));
  return out;
}

fs::path configured_error_log(const MysqlSettings& settings) {
  fs::path out;
  try {
    for (const OptionLine& line : other_options(settings)) {
      if (line.name == "log_error" && !line.value.empty()) out = line.value;
    }
  } catch (const Error&) {
    return {};
  }
  if (out.empty() || out == "stderr") return {};
  if (out.is_relative()) out = settings.data_dir / out;
  // The server adds it to a name without one.
  std::error_code ec;
  if (!out.has_extension() && !fs::exists(out, ec)) out += ".err";
  return out;
}

}  // namespace guestagent::mysql

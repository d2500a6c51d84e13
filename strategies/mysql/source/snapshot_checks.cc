#include "strategies/mysql/source/snapshot_checks.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <thread>

#include "base/host_name.h"
#include "config/units.h"
#include "strategies/mysql/copy/backup_tools.h"
#include "strategies/mysql/copy/clone_copy.h"
#include "strategies/mysql/source/host_checks.h"
#include "strategies/mysql/source/replica_checks.h"
#include "strategies/mysql/source/snapshot_source.h"

namespace guestagent::mysql {
namespace {

constexpr std::uint64_t kSmallRedo = 64 * kMiB;
constexpr std::uint64_t kMuchData = 1024 * kMiB;
// What a copy makes of a plain disk and a near store; bench/README.md has 250 MiB/s with both in memory.
constexpr std::uint64_t kCopyRate = 100 * kMiB;
constexpr Millis kSample{200};
constexpr std::size_t kNamed = 5;  // how many of a list are named in a message

// Of the rights that an agent's account has, those that a snapshot uses everywhere.
constexpr std::array<std::string_view, 7> kSourceRights = {
    "RELOAD", "PROCESS", "CREATE USER", "REPLICATION SLAVE", "REPLICATION CLIENT", "BINLOG MONITOR", "BACKUP_ADMIN"};
constexpr std::array<std::string_view, 3> kPurgeRights = {"SYSTEM_VARIABLES_ADMIN", "BINLOG ADMIN", "SUPER"};

using Result = Check::Result;

bool named_in(std::string_view list, std::string_view right) {
  return (", " + std::string(list) + ",").find(", " + std::string(right) + ",") != std::string::npos;
}

std::string first_of(const std::vector<std::string>& names) {
  std::string out;
  for (std::size_t i = 0; i < names.size() && i < kNamed; ++i) out += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > kNamed) out += " and " + std::to_string(names.size() - kNamed) + " more";
  return out;
}

bool is_loopback(const std::string& address) {
  const auto host = HostName::parse(address);
  return host && host->is_loopback();
}

class SourceChecks {
 public:
  SourceChecks(const MysqlSettings& settings, ServerClient& client, const ServerIdentity& server,
               std::vector<Check>& out)
      : settings_(settings), client_(client), server_(server), out_(out) {}

  void all() {
    if (!rights()) return;
    binary_log();
    identity();
    reachable_by_replicas();
    mode();
    tool();
    own_source();
    tables();
    engines();
    redo();
    tls();
    account();
  }

  // All but what a copy needs.
  void to_be_followed() {
    if (!rights()) return;
    if (server_.log_bin) {
      binary_log();
    } else {
      add("binary log", Result::failed, "it is off, so that no replica could follow",
          "log_bin in the server's option file and a restart");
    }
    identity();
    reachable_by_replicas();
    own_source();
    tls();
    account();
  }

 private:
  // Those without which the copy, the account or the lease would fail, some of them only after all the data has been
  // read.
  bool rights() {
    // Nobody's rights can be asked for then.
    if (client_.skips_grants()) {
      add("server mode", Result::failed,
          "the server was started with skip_grant_tables: no account for replicas can be made",
          "take skip_grant_tables out of its option files and restart it");
      return false;
    }
    const std::vector<std::string> grants = client_.own_grants();
    const auto held = [&](std::string_view right) {
      const auto missing = missing_privileges(right, grants);
      return std::find(missing.begin(), missing.end(), right) == missing.end();
    };
    const std::string_view wanted = client_.dialect().agent_privileges;
    std::vector<std::string> lacks;
    for (const std::string_view right : kSourceRights) {
      if (named_in(wanted, right) && !held(right)) lacks.emplace_back(right);
    }
    const auto purges = client_.purge_settings();
    const bool purged = std::any_of(purges.begin(), purges.end(), [](const auto& each) {
      return each.second.find_first_not_of("0.") != std::string::npos;
    });
    // Any one of them may set the expiry of binary logs.
    if (purged && std::none_of(kPurgeRights.begin(), kPurgeRights.end(), held)) {
      lacks.emplace_back(
          *std::find_if(kPurgeRights.begin(), kPurgeRights.end(), [&](auto right) { return named_in(wanted, right); }));
    }
    if (const auto option = missing_privileges("", grants); !option.empty()) lacks.push_back(option.back());
    if (lacks.empty()) {
      add("account's rights", Result::ok, client_.target().user + " may do what a snapshot needs");
      return true;
    }
    std::string names;
    for (const std::string& each : lacks) names += (names.empty() ? "" : ", ") + each;
    add("account's rights", Result::failed, "the agent's account " + client_.target().user + " lacks " + names,
        "GRANT them ON *.* TO it WITH GRANT OPTION", Code::permission_denied);
    return false;
  }

  void add(std::string name, Result result, std::string message, std::string hint = "",
           Code code = Code::failed_precondition) {
    out_.push_back({std::move(name), result, std::move(message), std::move(hint), code});
  }

  void binary_log() {
    if (!server_.log_bin) {
      if (!client_.replica_status().empty()) {
        // MariaDB throws away at a restart what was received and not applied, and the source may have it no more.
        add("binary log", Result::failed, "it is off, and this is a replica: the agent does not restart one for that",
            "log_bin and log_slave_updates in its option file and a restart by hand when it has applied all; or take "
            "the snapshot of its source");
      } else if (settings_.allow_restart) {
        add("binary log", Result::warning, "it is off; the server will be restarted with it on");
      } else {
        add("binary log", Result::failed, "it is off, so that no replica could follow",
            "log_bin in the server's option file and a restart; or mysql.allow_restart, then the agent does "
            "both");
      }
      return;
    }
    add("binary log", Result::ok, "on");
    if (server_.binlog_format == "STATEMENT") {
      add("binary log format", Result::warning, "STATEMENT: statements that are not deterministic make replicas differ",
          "binlog_format=ROW");
    }
    const BinlogStatus status = client_.binlog_status();
    if (!status.do_db.empty() || !status.ignore_db.empty()) {
      add("binary log filters", Result::warning,
          "binlog_do_db or binlog_ignore_db is set: changes of some databases do not reach replicas",
          "filter on the replicas instead");
    }
  }

  void identity() {
    if (server_.server_id == 0) {
      add("server id", Result::failed, "it is 0, with which a server has no replicas",
          "server_id in the server's option file");
    } else {
      add("server id", Result::ok, std::to_string(server_.server_id));
    }
    if (settings_.replication == "gtid" && !server_.gtid_on) {
      add("GTID", Result::warning, "it is off: replicas follow by file and position", "gtid_mode=ON on the source");
    }
  }

  void reachable_by_replicas() {
    if (!server_.networking) {
      add("network", Result::failed, "the server does not listen (skip_networking)",
          "remove skip_networking and restart it");
      return;
    }
    const std::string bind = client_.variable("bind_address").value_or("");
    if (is_loopback(bind) && !is_loopback(settings_.advertised_address)) {
      add("network", Result::warning,
          "the server listens on " + bind + " only, replicas are told " + settings_.advertised_address,
          "bind_address in the server's option file");
      return;
    }
    add("network", Result::ok,
        settings_.advertised_address + ":" + std::to_string(settings_.advertised_port.value_or(server_.port)));
  }

  // What no copy can be taken in.
  void mode() {
    const std::string recovery = client_.variable("innodb_force_recovery").value_or("0");
    if (recovery != "0") {
      add("server mode", Result::failed,
          "innodb_force_recovery is " + recovery + ": the server is being rescued, and a copy of it is not sound",
          "make its data sound, take innodb_force_recovery out of its option files and restart it");
    }
    if (client_.variable("innodb_read_only").value_or("OFF") == "ON") {
      add("server mode", Result::failed, "innodb_read_only is ON: no account for replicas can be made",
          "take innodb_read_only out of the server's option files and restart it");
    }
    if (const std::string change = first_logged_change(client_.variable("init_connect").value_or(""));
        !change.empty()) {
      add("init_connect", Result::warning,
          "init_connect has \"" + change +
              "\": who may not do that cannot connect, and the replicas' account has the rights of replication only",
          "let everybody do it, or leave that account out of it");
    }
    if (client_.variable("offline_mode").value_or("OFF") == "ON") {
      add("server mode", Result::failed, "offline_mode is ON: no replica could connect", "SET GLOBAL offline_mode=OFF");
    }
  }

  void tool() {
    try {
      const BackupTool tool = choose_tool(settings_, server_.version);
      add("tool", Result::ok, tool.name == kClone ? "the server's clone plugin" : tool.name + " " + tool.version);
      cloned_ = tool.name == kClone;
      if (cloned_) check_clone(settings_, client_, server_, out_);
    } catch (const Error& e) {
      add("tool", Result::failed, e.what(), e.hint(), e.code());
    }
  }

  void own_source() {
    if (client_.replica_status().empty()) return;
    if (const std::uint64_t open = client_.open_temporary_tables(); open > 0) {
      add("temporary tables", Result::warning,
          "its applying thread has " + std::to_string(open) +
              " temporary tables open, which are in no copy: statements that use them stop a replica",
          "binlog_format=ROW on its source; or take the snapshot when Slave_open_temp_tables "
          "(Replica_open_temp_tables) is 0");
    }
    if (server_.log_updates) {
      add("own source", Result::ok, "a replica itself, which logs what it applies");
    } else {
      add("own source", Result::failed,
          "a replica itself, which does not log what it applies: its replicas would miss that",
          "log_slave_updates=1 on it, or take the snapshot of its source");
    }
  }

  void tables() {
    if (std::error_code failed; !fs::is_directory(server_.data_dir, failed)) {
      add("data directory", Result::failed, server_.data_dir.string() + " cannot be read here",
          "the agent must run on the server's host and be allowed to read its data", Code::permission_denied);
      return;
    }
    std::vector<std::string> outside = client_.tables_elsewhere();
    for (std::string& each : links_out(server_.data_dir)) outside.push_back(std::move(each));
    if (outside.empty()) {
      add("tables outside", Result::ok, "none");
    } else {
      add("tables outside", Result::failed,
          "these lie outside of the data directory (DATA DIRECTORY, symbolic links): " + first_of(outside),
          "rebuild them without DATA DIRECTORY: a copy of them would open the source's own files");
    }
  }

  // The clone plugin has a check of its own, which lets InnoDB tables pass only.
  void engines() {
    if (cloned_) return;
    const bool may_look = client_.read_quietly();
    std::vector<TableName> tables;
    try {
      tables = client_.user_tables(false);
    } catch (const Error& e) {
      if (e.code() != Code::deadline_exceeded) throw;
      return add("engines", Result::warning,
                 "a statement that runs holds a table that it makes: which engines the tables have was not looked at",
                 "rows of MEMORY tables are not in a copy: see that there are none, or take the snapshot when that "
                 "statement is done");
    }
    check_engines(
        tables, [&](const TableName& table) { return !may_look || client_.has_rows(table); }, out_);
  }

  void account() {
    if (const auto plugins = client_.password_validators(); !plugins.empty()) {
      add("account rules", Result::failed,
          "strict_password_validation is on, and " + first_of(plugins) +
              " must see each new password in clear: the agent makes the replication account by a hash, so that no log "
              "has its password",
          "SET GLOBAL strict_password_validation=OFF until the snapshot has begun (the password is 32 random letters "
          "and digits)");
    }
    if (client_.refuses_all_writes()) {
      add("read only", Result::ok,
          "it refuses every writer; that is lifted for the statement that makes the account, read_only stays on");
    }
  }

  void redo() {
    const std::uint64_t data = copied_bytes(server_);
    std::uint64_t rate = 0;
    if (server_.redo_bytes < data) {
      const std::uint64_t before = client_.redo_written();
      std::this_thread::sleep_for(kSample);
      rate = (client_.redo_written() - before) * 1000 / static_cast<std::uint64_t>(kSample.count());
    }
    out_.push_back(check_redo(server_.redo_bytes, data, rate));
  }

  void tls() {
    const bool only_tls = client_.variable("require_secure_transport") == "ON";
    if (only_tls && !server_.tls) {
      add("TLS", Result::failed,
          "the server takes connections by TLS only (require_secure_transport), but has no certificate: no replica "
          "could connect",
          "ssl_cert and ssl_key in the server's option file, or require_secure_transport=OFF");
    } else if (only_tls && settings_.require_tls == "no") {
      add("TLS", Result::failed,
          "mysql.require_tls is no, but the server takes connections by TLS only (require_secure_transport)",
          "mysql.require_tls: auto");
    } else if (settings_.require_tls == "yes" && !server_.tls) {
      add("TLS", Result::failed, "mysql.require_tls is yes, but the server has no certificate",
          "ssl_cert and ssl_key in the server's option file; or mysql.require_tls: auto");
    } else {
      add("TLS", Result::ok,
          account_requires_tls(settings_, server_) ? "required of replicas" : "not required of replicas");
    }
  }

  const MysqlSettings& settings_;
  ServerClient& client_;
  const ServerIdentity& server_;
  std::vector<Check>& out_;
  bool cloned_ = false;
};

}  // namespace

void check_engines(const std::vector<TableName>& tables, const std::function<bool(const TableName&)>& has_rows,
                   std::vector<Check>& out) {
  // Whose rows are files of the data directory that the tools copy, or that have none.
  static const std::vector<std::string> kCopied = {"InnoDB", "MyISAM",  "Aria",      "MRG_MyISAM",
                                                   "CSV",    "ARCHIVE", "BLACKHOLE", "ROCKSDB"};
  static const std::vector<std::string> kRemote = {"FEDERATED", "SPIDER", "CONNECT", "S3", "SPHINX"};
  static const std::vector<std::string> kNowhere = {"TokuDB", "Columnstore", "ndbcluster"};
  std::vector<std::string> in_memory, remote, missing, unknown;
  const auto one_of = [](const std::vector<std::string>& list, const std::string& engine) {
    return std::any_of(list.begin(), list.end(), [&](const std::string& each) {
      return each.size() == engine.size() && std::equal(each.begin(), each.end(), engine.begin(), [](char a, char b) {
               return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b));
             });
    });
  };
  for (const TableName& table : tables) {
    const std::string name = table.schema + "." + table.name + " (" + table.engine + ")";
    if (table.engine.empty() || one_of(kCopied, table.engine)) continue;
    if (table.engine == "MEMORY") {
      if (has_rows(table)) in_memory.push_back(name);
    } else if (one_of(kRemote, table.engine)) {
      remote.push_back(name);
    } else if (one_of(kNowhere, table.engine)) {
      missing.push_back(name);
    } else {
      unknown.push_back(name);
    }
  }
  const auto add = [&](std::string name, Result result, std::string message, std::string hint) {
    out.push_back({std::move(name), result, std::move(message), std::move(hint), Code::failed_precondition});
  };
  if (!in_memory.empty()) {
    add("tables in memory", Result::failed,
        "the rows of these are in no copy, and the first change of one of them would stop the replica: " +
            first_of(in_memory),
        "empty them (what is written to them after the snapshot is replicated), or ALTER TABLE … ENGINE=InnoDB");
  }
  if (!missing.empty()) {
    add("engines", Result::failed, "the backup tool does not copy the rows of these: " + first_of(missing),
        "ALTER TABLE … ENGINE=InnoDB");
  }
  if (!remote.empty()) {
    add("remote tables", Result::warning,
        "the rows of these lie outside of the server: a replica sees the same ones, and what it applies to them is "
        "written there twice: " +
            first_of(remote),
        "leave them out on the replica (replicate_ignore_table)");
  }
  if (!unknown.empty()) {
    add("engines", Result::warning, "it is not known whether the copy has the rows of these: " + first_of(unknown),
        "compare them by checksum_tables");
  }
}

Check check_redo(std::uint64_t redo_bytes, std::uint64_t data, std::uint64_t written) {
  const std::string holds = std::to_string(redo_bytes / kMiB) + " MiB";
  const std::string hint =
      "a larger innodb_log_file_size (innodb_redo_log_capacity of MySQL 8.0.30 and later), a quieter "
      "hour, or a larger snapshot.spill.max_size";
  const std::uint64_t seconds = data / kCopyRate + 1;
  if (redo_bytes != 0 && written > redo_bytes / seconds) {
    return {"redo log", Result::warning,
            "it holds " + holds + ", which the server writes over in " + std::to_string(redo_bytes / written) +
                " s at its present rate, and the copy of " + std::to_string(data / kMiB) + " MiB takes some " +
                std::to_string(seconds) + " s: a store that holds it up for longer than that fails it",
            hint, Code::failed_precondition};
  }
  if (redo_bytes != 0 && redo_bytes < kSmallRedo && data > kMuchData) {
    return {"redo log", Result::warning,
            "it holds " + holds + " for " + std::to_string(data / kMiB) +
                " MiB of data: under heavy writes it may be overwritten before it is copied, which fails the "
                "copy at its end",
            hint, Code::failed_precondition};
  }
  return {"redo log", Result::ok, holds, "", Code::failed_precondition};
}

namespace {

void check_server(const MysqlSettings& settings, ServerClient& client, std::vector<Check>& out,
                  void (SourceChecks::*which)()) {
  ServerIdentity server;
  try {
    server = client.identity();
  } catch (const Error& e) {
    out.push_back({"server", Result::failed, e.what(), e.hint(), e.code()});
    return;
  }
  out.push_back({"server", Result::ok, server.version.text(), "", Code::failed_precondition});
  (SourceChecks(settings, client, server, out).*which)();
}

}  // namespace

void check_source(const MysqlSettings& settings, ServerClient& client, std::vector<Check>& out) {
  check_server(settings, client, out, &SourceChecks::all);
}

void check_followed(const MysqlSettings& settings, ServerClient& client, std::vector<Check>& out) {
  check_server(settings, client, out, &SourceChecks::to_be_followed);
}

bool account_requires_tls(const MysqlSettings& settings, const ServerIdentity& server) {
  return settings.require_tls == "yes" || (settings.require_tls == "auto" && server.tls);
}

std::vector<std::string> links_out(const fs::path& data_dir) {
  std::vector<std::string> out;
  std::error_code failed;
  const auto look = [&](const fs::path& dir, const fs::path& relative, auto&& deeper) -> void {
    for (const auto& entry : fs::directory_iterator(dir, fs::directory_options::skip_permission_denied, failed)) {
      const fs::path name = relative / entry.path().filename();
      if (entry.is_symlink(failed)) {
        // A link to a file beside it (a socket, a log) is no table.
        const std::string extension = entry.path().extension().string();
        static const std::vector<std::string> kData = {".ibd", ".MYD", ".MYI", ".MAD", ".MAI"};
        const bool table = std::find(kData.begin(), kData.end(), extension) != kData.end();
        if (table || entry.is_directory(failed)) out.push_back(name.string());
      } else if (entry.path().extension() == ".isl") {
        out.push_back(name.string());
      } else if (relative.empty() && entry.is_directory(failed)) {
        deeper(entry.path(), name, deeper);
      }
    }
  };
  look(data_dir, {}, look);
  std::sort(out.begin(), out.end());
  return out;
}

std::uint64_t copied_bytes(const ServerIdentity& server) {
  const auto left_out = [&](const std::string& name) {
    const auto of = [&](const std::string& basename) {
      return !basename.empty() && name.starts_with(fs::path(basename).filename().string() + ".");
    };
    return of(server.log_bin_basename) || of(server.relay_log_basename) || name.starts_with("ib_logfile") ||
           name == "ibtmp1" || name.starts_with("#ib_redo") || name.ends_with(".pid") || name.ends_with(".err");
  };
  std::uint64_t sum = 0;
  const auto add = [&](const fs::path& dir) {
    std::error_code failed;
    for (auto it = fs::recursive_directory_iterator(dir, fs::directory_options::skip_permission_denied, failed);
         !failed && it != fs::recursive_directory_iterator(); it.increment(failed)) {
      struct stat info {};
      // Sparse and compressed tables have less on the disk than in length, and are read and sent at their
      // length.
      if (left_out(it->path().filename().string()) || ::lstat(it->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode))
        continue;
      sum += static_cast<std::uint64_t>(info.st_size);
    }
  };
  add(server.data_dir);
  for (const std::string& elsewhere : {server.innodb_home, server.undo_dir}) {
    const fs::path dir(elsewhere);
    if (dir.is_absolute() && !dir.string().starts_with(server.data_dir.string())) add(dir);
  }
  return sum;
}

}  // namespace guestagent::mysql

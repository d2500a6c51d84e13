#include "strategies/mysql/install/preflight.h"

#include <algorithm>
#include <optional>

#include "base/child.h"
#include "base/error.h"
#include "base/held_dir.h"
#include "config/units.h"
#include "strategies/mysql/copy/backup_tools.h"
#include "strategies/mysql/copy/clone_copy.h"
#include "strategies/mysql/follow/join.h"
#include "strategies/mysql/follow/replica_start.h"
#include "strategies/mysql/follow/repoint.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/host/replica_options.h"
#include "strategies/mysql/host/server_control.h"
#include "strategies/mysql/host/server_identity.h"
#include "strategies/mysql/host/tree_move.h"
#include "strategies/mysql/host/work_places.h"
#include "strategies/mysql/install/receive.h"
#include "strategies/mysql/install/staged.h"
#include "strategies/mysql/install/switch_data.h"
#include "strategies/mysql/server/server_client.h"
#include "strategies/mysql/source/host_checks.h"
#include "strategies/mysql/source/replica_checks.h"
#include "strategies/mysql/source/source_server.h"

namespace guestagent::mysql {
namespace {

[[noreturn]] void refuse(const std::string& message, const std::string& hint) {
  throw Error(Code::failed_precondition, message, hint);
}

// The one list of checks, in the order in which they are told.
class Checks {
 public:
  // `probe` answers what was found good; an Error it throws is the failed check.
  template <typename F>
  bool add(std::string name, F&& probe) {
    Check check;
    check.name = std::move(name);
    try {
      check.message = probe();
    } catch (const Error& e) {
      check.result = Check::Result::failed;
      check.message = e.what();
      check.hint = e.hint();
      // What is missing on this host is a precondition of the call, not the thing that was asked for.
      check.code = e.code() == Code::not_found ? Code::failed_precondition : e.code();
    }
    list_.push_back(std::move(check));
    return list_.back().result == Check::Result::ok;
  }
  void warn(std::string name, std::string message, std::string hint) {
    list_.push_back(
        {std::move(name), Check::Result::warning, std::move(message), std::move(hint), Code::failed_precondition});
  }
  void skip(std::string name, std::string message) {
    list_.push_back({std::move(name), Check::Result::skipped, std::move(message), "", Code::failed_precondition});
  }
  void append(std::vector<Check> checks) {
    for (Check& check : checks) list_.push_back(std::move(check));
  }
  bool all_passed() const {
    return std::none_of(list_.begin(), list_.end(),
                        [](const Check& check) { return check.result == Check::Result::failed; });
  }
  std::vector<Check> take() { return std::move(list_); }

 private:
  std::vector<Check> list_;
};

std::string gib(std::uint64_t bytes) {
  const std::uint64_t tenths = (bytes * 10 + (std::uint64_t{1} << 29)) >> 30;
  if (tenths == 0) return std::to_string((bytes + kMiB - 1) / kMiB) + " MiB";
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " GiB";
}

std::uint16_t advertised_port(const MysqlSettings& settings, const ServerIdentity& here) {
  return settings.advertised_port.value_or(here.port);
}

std::string check_data_dir(const MysqlSettings& settings, const ServerIdentity& here) {
  std::error_code ec;
  if (!fs::equivalent(settings.data_dir, here.data_dir, ec)) {
    refuse("mysql.data_dir: " + settings.data_dir.string() + ": the server's is " + here.data_dir.string(),
           "set mysql.data_dir to that");
  }
  for (const auto& entry : fs::directory_iterator(settings.data_dir)) {
    const fs::path& path = entry.path();
    if (path.filename() == "lost+found" || path.filename() == kHiddenDir) continue;
    if (is_mount_point(path) && path != fs::path(here.redo_dir) && path != fs::path(here.undo_dir)) {
      refuse(path.string() + ": another file system is mounted inside of the data directory",
             "unmount it: only the data directory itself, or a directory for logs, may be a mount point");
    }
  }
  require_own_dir(work_dir(settings.data_dir));
  return "the server's data is in " + settings.data_dir.string();
}

// `why_not`: why it cannot be pointed at the snapshot's source as it is, where it is a replica.
std::string check_overwrite(ServerClient& client, const AttachRequest& request, const std::string& why_not) {
  const std::vector<ReplicaStatus> channels = client.replica_status();
  const bool data = client.has_user_data();
  if (request.overwrite) return data ? "the data here is given up: overwrite" : "there is no user data here";
  if (!channels.empty()) {
    refuse("this server is a replica of " + channels.front().source_host +
               " already, and cannot follow the snapshot's source as it is: " + why_not,
           "slave_config.overwrite: true gives its data up for the snapshot's (it is put back when the attach fails)");
  }
  if (data) {
    refuse("this server has user data" +
               (why_not.empty() ? "" : ", and cannot follow the snapshot's source as it is: " + why_not),
           "slave_config.overwrite: true gives it up (it is put back when the attach fails)");
  }
  return "there is no user data here";
}

void plan_repoint(const MysqlSettings& settings, const AttachRequest& request, ServerClient& client,
                  const ServerIdentity& here, Checks& checks, Plan& plan) {
  const std::string now = client.replica_status().front().source_host;
  checks.add("data", [] { return "this replica has what the snapshot has: no copy is needed"; });
  plan.checks = checks.take();
  check_source_reachable(settings, request.snapshot, here.server_id, plan.checks);
  plan.data_is_here = true;
  plan.steps = {"stop following " + now,
                "follow " + request.snapshot.master_host + ":" + std::to_string(request.snapshot.master_port) +
                    " from where this replica is, and catch up; any failure lets it follow " + now + " again"};
}

void plan_join(const MysqlSettings& settings, const AttachRequest& request, ServerClient& client,
               const ServerIdentity& here, Checks& checks, Plan& plan) {
  checks.add("data", [] { return "all that this server has is in the source's history: no copy is needed"; });
  checks.append(check_option_files(settings, true));
  checks.append(check_replica_hazards(read_replica_hazards(client)));
  if (!here.log_updates) {
    checks.warn("binary log", "this server does not write what it applies to its binary log: it is restarted for that",
                "log_slave_updates in its option file beforehand");
    checks.add("server control", [&] { return check_control(settings); });
  }
  plan.checks = checks.take();
  check_source_reachable(settings, request.snapshot, here.server_id, plan.checks);
  plan.data_is_here = true;
  plan.steps = {"refuse writes, and look again whether all that is here is on the source",
                "write " + settings.managed_file.string() + " as a replica's",
                "follow " + request.snapshot.master_host + ":" + std::to_string(request.snapshot.master_port) +
                    " from where this server is, and catch up; any failure makes it as it was"};
}

std::string check_not_itself(const MysqlSettings& settings, ServerClient& client, const ServerIdentity& here,
                             const AttachRequest& request, const SourceServer& source) {
  const std::string hint = "attach it on another host";
  if (!source.server_uuid.empty() && source.server_uuid == here.server_uuid) {
    refuse(
        "the snapshot is of this very server (server_uuid " + here.server_uuid + ")",
        hint + "; if this host was copied from the source with its auto.cnf, remove that file and restart the server");
  }
  if (request.snapshot.master_host == settings.advertised_address &&
      request.snapshot.master_port == advertised_port(settings, here)) {
    refuse("the snapshot is of this very server (" + settings.advertised_address + ":" +
               std::to_string(advertised_port(settings, here)) + ")",
           hint);
  }
  // Under another name: an account that was made on the source for this snapshot is nowhere else.
  if (client.account_exists(request.snapshot.replication_user, settings.replication_host)) {
    bool follows = false;
    for (const ReplicaStatus& channel : client.replica_status())
      follows = follows || channel.source_host == request.snapshot.master_host;
    if (!follows && source.server_id == here.server_id) {
      refuse("the snapshot is of this very server (it has the account " + request.snapshot.replication_user + ")",
             hint);
    }
  }
  return "the snapshot is of another server";
}

std::string check_version(const ServerIdentity& here, const AttachRequest& request) {
  const ServerVersion source = parse_datastore_version(request.snapshot.datastore_version);
  const std::string why = unsupported_pair(source, here.version);
  if (!why.empty())
    refuse(why, "use a host with " + std::string(family_name(source.family)) + " " + source.series() +
                    " or newer of the same kind");
  return source.text() + " to " + here.version.text();
}

// The tool that took the snapshot is the one that prepares it.
std::string check_tools(const MysqlSettings& settings, const ServerIdentity& here, const AttachRequest& request) {
  if (request.snapshot.format == kCloneFormat) return "none is needed for a clone";
  const ServerVersion source = parse_datastore_version(request.snapshot.datastore_version);
  const std::string name = source.family == Family::mariadb ? "mariadb-backup" : "xtrabackup";
  const std::string path = tool_path(settings, name);
  require_known_format(request.snapshot.format);
  const auto tool = find_tool(settings, name);
  if (tool) {
    const std::string misfit = prepare_misfit(*tool, source);
    if (!misfit.empty())
      refuse(misfit, "install the tool of the snapshot's series (" + request.snapshot.tool + " took it)");
  }
  const auto upgrade = find_upgrade_tool(settings, source, here.version);
  return path + (tool ? " " + tool->version : "") + (upgrade ? " and " + upgrade->string() : "");
}

std::string check_space(const MysqlSettings& settings, const AttachRequest& request, const SourceServer& source) {
  const std::uint64_t raw = std::max(request.snapshot.raw_bytes, request.snapshot.dataset_bytes);
  // Beside the copy: the redo log at its full size again, and something to live on. The old data stays until the end.
  std::uint64_t needed = raw + raw / 50 + source.redo_bytes + 64 * kMiB;
  // What an interrupted attach of the same snapshot left is a part of it.
  const PieceSource::Kind stream{request.snapshot.format, request.snapshot.tool, request.snapshot.digest};
  for (const StagedCopy& staged : staged_copies(settings)) {
    if (is_staged_for(staged.dir, stream)) needed -= std::min(needed, staged.bytes);
  }
  const auto require = [&](const fs::path& place) {
    const std::uint64_t free = free_bytes(place);
    if (free >= needed) return;
    throw Error(Code::resource_exhausted,
                place.string() + ": " + gib(free) + " free, " + gib(needed) +
                    " needed (the data from before is kept until the replica runs)",
                "free space there, or set mysql.staging_dir to a larger file system");
  };
  require(staging_parent(settings));
  if (!settings.staging_dir.empty() && fs::exists(settings.staging_dir) &&
      !same_file_system(settings.staging_dir, settings.data_dir)) {
    require(settings.data_dir);
  }
  return gib(needed) + " needed, " + gib(free_bytes(staging_parent(settings))) + " free";
}

std::string check_fit(const ServerIdentity& here, const SourceServer& source) {
  const auto differ = [](const std::string& name, const std::string& there, const std::string& local) {
    refuse(name + ": " + there + " on the source, " + local + " here: the copy would not run",
           "set it here as on the source");
  };
  if (source.page_size != 0 && source.page_size != here.page_size) {
    differ("innodb_page_size", std::to_string(source.page_size), std::to_string(here.page_size));
  }
  if (!source.version.empty() && source.lower_case_table_names != here.lower_case_table_names) {
    differ("lower_case_table_names", std::to_string(source.lower_case_table_names),
           std::to_string(here.lower_case_table_names));
  }
  if (tablespace_names(source.innodb_data_file_path) != tablespace_names(here.innodb_data_file_path) &&
      !source.innodb_data_file_path.empty()) {
    differ("innodb_data_file_path", source.innodb_data_file_path, here.innodb_data_file_path);
  }
  return "page size, table names' case and system tablespace are as on the source";
}

bool is_key_plugin(const std::string& name) {
  return name.find("key_management") != std::string::npos || name.find("keyring") != std::string::npos;
}

std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t kSome = 5;
  std::string out;
  for (std::size_t i = 0; i < std::min(kSome, names.size()); ++i) out += (i == 0 ? "" : ", ") + names[i];
  return out + (names.size() > kSome ? ", …" : "");
}

// MySQL's keyring components are no plugins. Whether the keys are the same shows only when the copied tables are
// opened.
void check_keyring(Checks& checks, const std::string& here, const SourceServer& source) {
  if (source.keyring_component.empty() || source.keyring_component == here) return;
  const std::string what = "the source keeps its keys by the component " + source.keyring_component +
                           ", and this server " + (here.empty() ? "has no keyring component" : "by " + here);
  const std::string hint = "configure that component here, with the same keys";
  if (source.encrypted_tables.empty()) {
    checks.warn("encryption",
                what + "; nothing is encrypted now, but a table made encrypted later would stop replication", hint);
    return;
  }
  checks.add("encryption",
             [&]() -> std::string { refuse(what + ": it could not read " + some_of(source.encrypted_tables), hint); });
}

void check_plugins(Checks& checks, const ServerIdentity& here, const std::string& keyring, const SourceServer& source) {
  std::string others;
  const auto missing = [&](const std::string& name) {
    return std::find(here.plugins.begin(), here.plugins.end(), name) == here.plugins.end();
  };
  checks.add("encryption", [&]() -> std::string {
    for (const std::string& name : source.plugins) {
      if (is_key_plugin(name) && missing(name)) {
        refuse("the source keeps its tables' keys by the plugin " + name + ", which this server does not have",
               "install and configure that plugin here, with the same keys");
      }
    }
    return "no key plugin is missing";
  });
  check_keyring(checks, keyring, source);
  for (const std::string& name : source.plugins) {
    if (!is_key_plugin(name) && missing(name)) others += (others.empty() ? "" : ", ") + name;
  }
  if (!others.empty()) {
    checks.warn("plugins", "the source has plugins that this server has not: " + others,
                "tables or accounts that need them will not work here");
  }
}

void check_links(Checks& checks, const MysqlSettings& settings) {
  std::string links;
  for (const auto& entry : fs::directory_iterator(settings.data_dir)) {
    if (entry.is_symlink()) links += (links.empty() ? "" : ", ") + entry.path().filename().string();
  }
  if (links.empty()) return;
  checks.warn("links", "symbolic links in the data directory: " + links + ": what is behind them stays where it is",
              "remove that data yourself once the replica runs");
}

void check_persisted(Checks& checks, const MysqlSettings& settings) {
  if (!fs::exists(settings.data_dir / "mysqld-auto.cnf")) return;
  checks.warn("persisted variables",
              "this server has variables set by SET PERSIST; they are kept with its data, and go with it",
              "put those that the replica needs into the server's option files");
}

void check_configuration(Checks& checks, const MysqlSettings& settings, ServerClient& client,
                         const ServerIdentity& here, const SourceServer& source, const AttachRequest& request) {
  ReplicaOptionFacts facts;
  facts.family = here.version.family;
  facts.running = client.variables();
  for (const auto& [name, value] : client.applier_filters()) facts.running[name] = value;
  facts.group_member = client.in_a_group();
  facts.source_is_known = !source.version.empty();
  facts.source_has_gtid = told_gtid(request.snapshot).has_value();
  try {
    facts.configured = other_options(settings);
  } catch (const Error&) {
    // check_option_files has told that they cannot be read.
  }
  if (const auto pid = data_holder(settings.data_dir); pid && *pid > 0) {
    for (OptionLine& line : command_line_options(*pid)) {
      // The managed file cannot override it, and no variable tells of it where the server is MariaDB.
      if (line.name == "skip_slave_start" || line.name == "skip_replica_start") {
        checks.add("replica options", [&]() -> std::string {
          refuse(line.file.string() + ": " + line.name + ": the replica would stand still after each restart",
                 "take it out of the server's start command");
        });
      }
      facts.configured.push_back(std::move(line));
    }
  }
  checks.append(check_replica_options(facts));
}

std::vector<std::string> steps_of(const MysqlSettings& settings, const AttachRequest& request,
                                  const std::string& server_id) {
  const bool keep = request.keep_previous_data.value_or(settings.keep_previous_data);
  return {
      "fetch the snapshot, verify it, and extract it into " + staging_parent(settings).string(),
      "prepare it there; the running server is not touched",
      "stop the server and move its data from " + settings.data_dir.string() + " to " +
          work_dir(settings.data_dir).string(),
      "move the new data in",
      "start the server privately: clear inherited replication, make the agent's account again",
      "write " + settings.managed_file.string() + " (server_id " + server_id + ", read_only " +
          (request.read_only ? "ON" : "OFF") + ", event scheduler off) and start the server",
      "follow " + request.snapshot.master_host + ":" + std::to_string(request.snapshot.master_port) + " and catch up",
      keep ? "keep the old data where it was moved to" : "remove the old data; until here, any failure puts it back"};
}

}  // namespace

Plan plan_attach_checks(const MysqlSettings& settings, const fs::path& state_dir, const AttachRequest& request,
                        const std::string& server_json, Clock& clock) {
  Checks checks;
  Plan plan;
  std::optional<ServerIdentity> here;
  std::optional<ServerClient> client;
  SourceServer source;

  checks.add("snapshot", [&] {
    source = read_source_server(server_json);
    return (request.snapshot.has_data ? "taken of " : "without data, of ") + request.snapshot.datastore_version +
           " at " + request.snapshot.created_at;
  });
  const bool reachable = checks.add("server", [&] {
    client.emplace(local_target(settings));
    here = client->identity();
    return here->version.text() + " answers on " + settings.socket.string();
  });
  if (!reachable) {
    plan.checks = checks.take();
    return plan;
  }
  checks.add("itself", [&] { return check_not_itself(settings, *client, *here, request, source); });
  checks.add("version", [&] { return check_version(*here, request); });
  std::string why_not;
  if (!request.overwrite && checks.all_passed()) {
    try {
      const bool replica = !client->replica_status().empty();
      const bool data = replica || client->has_user_data();
      const auto why = !data     ? std::optional<std::string>("it has no data")
                       : replica ? why_not_repoint(settings, state_dir, request, *client, clock)
                                 : why_not_join(settings, state_dir, request, *client, clock);
      if (!why && replica) plan_repoint(settings, request, *client, *here, checks, plan);
      if (!why && !replica) {
        check_configuration(checks, settings, *client, *here, source, request);
        plan_join(settings, request, *client, *here, checks, plan);
      }
      if (!why) return plan;
      why_not = *why;
    } catch (const Error& e) {
      why_not = e.what();
    }
  }
  if (!request.snapshot.has_data) {
    checks.add("user data", [&]() -> std::string {
      refuse("this server cannot follow that source from where it is: " +
                 (request.overwrite ? std::string("its data is to be overwritten, and there is no copy") : why_not),
             "take a snapshot of the source (get_replication_snapshot) and attach it with that, with overwrite where "
             "the data here may go");
    });
    plan.checks = checks.take();
    return plan;
  }
  checks.add("user data", [&] { return check_overwrite(*client, request, why_not); });
  checks.add("tools", [&] { return check_tools(settings, *here, request); });
  checks.add("data directory", [&] { return check_data_dir(settings, *here); });
  checks.add("space", [&] { return check_space(settings, request, source); });
  checks.add("server options", [&] { return check_fit(*here, source); });
  std::string keyring;
  if (!source.keyring_component.empty()) keyring = client->keyring_component();
  check_plugins(checks, *here, keyring, source);
  checks.append(check_option_files(settings, true));
  checks.add("server control", [&] { return check_control(settings); });
  std::uint32_t chosen = 0;
  checks.add("server id", [&] {
    chosen = choose_server_id(asked_server_id(request.own), source.server_id, settings.data_dir, state_dir);
    return std::to_string(chosen);
  });
  check_persisted(checks, settings);
  try {
    check_configuration(checks, settings, *client, *here, source, request);
  } catch (const Error& e) {
    checks.add("replica options", [&]() -> std::string { throw e; });
  }
  check_links(checks, settings);
  checks.append(check_replica_hazards(read_replica_hazards(*client)));
  plan.checks = checks.take();
  check_source_reachable(settings, request.snapshot, chosen, plan.checks);
  plan.steps = steps_of(settings, request, std::to_string(chosen));
  return plan;
}

}  // namespace guestagent::mysql

#include "strategies/mysql/host/replica_options.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <sstream>

#include "base/error.h"

namespace guestagent::mysql {
namespace {

std::string upper(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return out;
}

bool turned_on(std::string_view value) {
  const std::string word = upper(value);
  return word == "ON" || word == "1" || word == "YES" || word == "TRUE";
}
bool turned_off(std::string_view value) {
  const std::string word = upper(value);
  return word == "OFF" || word == "0" || word == "NO" || word == "FALSE" || word == "DISABLED";
}
bool names_something(std::string_view value) {
  return !value.empty() && !turned_off(value) && upper(value) != "NONE";
}
bool not_zero(std::string_view value) {
  return value.find_first_not_of('0') != std::string_view::npos && !turned_off(value);
}
bool idempotent(std::string_view value) {
  return upper(value) == "IDEMPOTENT";
}
bool not_replicate(std::string_view value) {
  return !value.empty() && upper(value) != "REPLICATE";
}

struct OptionRule {
  std::string_view names;  // separated by spaces: one option in the words of several servers
  bool (*bad)(std::string_view value);
  Check::Result result;
  std::string_view check;
  std::string_view why;
};

constexpr std::string_view kOptions = "replica options";
constexpr std::string_view kFilters = "filters";
constexpr std::string_view kLacks = "the replica will not have all that the source has";

constexpr std::array kRules = {
    OptionRule{"innodb_force_recovery", not_zero, Check::Result::failed, kOptions,
               "the server starts for rescue work only"},
    OptionRule{"innodb_read_only", turned_on, Check::Result::failed, kOptions, "nothing can be applied to it"},
    OptionRule{"replicate_rewrite_db", names_something, Check::Result::failed, kFilters,
               "the source's transactions would go to a database that the copy does not have"},
    OptionRule{"replicate_same_server_id", turned_on, Check::Result::failed, kOptions,
               "the server does not start with it, since a replica logs what it applies"},
    OptionRule{"replicate_do_db", names_something, Check::Result::warning, kFilters, kLacks},
    OptionRule{"replicate_ignore_db", names_something, Check::Result::warning, kFilters, kLacks},
    OptionRule{"replicate_do_table", names_something, Check::Result::warning, kFilters, kLacks},
    OptionRule{"replicate_ignore_table", names_something, Check::Result::warning, kFilters, kLacks},
    OptionRule{"replicate_wild_do_table", names_something, Check::Result::warning, kFilters, kLacks},
    OptionRule{"replicate_wild_ignore_table", names_something, Check::Result::warning, kFilters, kLacks},
    OptionRule{"replicate_events_marked_for_skip", not_replicate, Check::Result::warning, kFilters, kLacks},
    OptionRule{"binlog_do_db", names_something, Check::Result::warning, kFilters,
               "its own replicas, and a copy of it, will lack the rest"},
    OptionRule{"binlog_ignore_db", names_something, Check::Result::warning, kFilters,
               "its own replicas, and a copy of it, will lack that"},
    OptionRule{"slave_skip_errors replica_skip_errors", names_something, Check::Result::warning, kOptions,
               "errors are passed over, so the replica may differ from its source and not say so"},
    OptionRule{"slave_exec_mode replica_exec_mode", idempotent, Check::Result::warning, kOptions,
               "rows that do not fit are passed over, so the replica may differ from its source and not say so"},
    OptionRule{"slave_run_triggers_for_rbr", names_something, Check::Result::warning, kOptions,
               "triggers run again for rows that have their effect already"},
    OptionRule{"init_slave init_replica", names_something, Check::Result::warning, kOptions,
               "those statements run at each start of the applying thread"},
    OptionRule{"enforce_storage_engine", names_something, Check::Result::warning, kOptions,
               "tables of other engines cannot be made by the source"},
    OptionRule{"disabled_storage_engines", names_something, Check::Result::warning, kOptions,
               "the source's making of a table of such an engine stops replication"},
    OptionRule{"innodb_read_only_compressed", turned_on, Check::Result::warning, kOptions,
               "the source's changes of compressed tables stop replication"},
    OptionRule{"relay_log_purge", turned_off, Check::Result::warning, kOptions,
               "relay logs are kept for ever and fill the disk"},
};

// An option for one channel or connection has its name before it: "upstream.replicate_do_db".
std::string_view bare(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string_view::npos ? name : name.substr(dot + 1);
}

struct Set {
  std::string value, where;
};

class Configuration {
 public:
  explicit Configuration(const ReplicaOptionFacts& facts) : facts_(facts) {}

  // The last one counts, but for options that add up; then the first that `bad` finds.
  std::optional<Set> first(std::string_view name, bool (*bad)(std::string_view)) const {
    const bool adds_up = name.starts_with("replicate_") || name.starts_with("binlog_");
    std::optional<Set> found;
    bool configured = false;
    for (const OptionLine& line : facts_.configured) {
      if (bare(line.name) != name) continue;
      configured = true;
      // A name alone switches on.
      Set set{line.value.empty() ? "ON" : line.value,
              line.file.string() + (line.line == 0 ? "" : " (line " + std::to_string(line.line) + ")")};
      if (bad(set.value)) {
        found = std::move(set);
      } else if (!adds_up) {
        found.reset();
      }
    }
    if (configured) return found;
    const auto running = facts_.running.find(std::string(name));
    if (running == facts_.running.end() || !bad(running->second)) return std::nullopt;
    return Set{running->second, "the running server"};
  }

 private:
  const ReplicaOptionFacts& facts_;
};

std::string printed(const Set& set, std::string_view name) {
  return set.where + ": " + std::string(name) + "=" + set.value;
}

Check failed_check(std::string_view name, std::string message, std::string hint) {
  return {std::string(name), Check::Result::failed, std::move(message), std::move(hint), Code::failed_precondition};
}

// A member of a cluster takes its data from the others when it joins them, and gives them what is applied to it.
void judge_cluster(const ReplicaOptionFacts& facts, const Configuration& configuration, std::vector<Check>& out) {
  constexpr std::string_view kHint =
      "use a server that is no member of a cluster: take it out of the cluster, in its option files too, and restart "
      "it";
  const auto refuse = [&](const std::string& what) {
    out.push_back(failed_check("cluster",
                               what + ": this server is a member of a cluster, which would replace the restored data "
                                      "and take over the source's transactions",
                               std::string(kHint)));
  };
  if (const auto address = configuration.first("wsrep_cluster_address", names_something)) {
    refuse(printed(*address, "wsrep_cluster_address"));
    return;
  }
  const bool provider = configuration.first("wsrep_provider", names_something).has_value();
  // MySQL's forks for clusters have it on where there is none.
  const auto on = configuration.first("wsrep_on", turned_on);
  if (on && (provider || facts.family == Family::mariadb)) {
    refuse(printed(*on, "wsrep_on"));
    return;
  }
  if (facts.group_member) {
    refuse("performance_schema.replication_group_members has this server");
    return;
  }
  const auto group = configuration.first("group_replication_group_name", names_something);
  if (!group) return;
  const auto boot = configuration.first("group_replication_start_on_boot", turned_off);
  if (!boot) refuse(printed(*group, "group_replication_group_name") + ", and group replication starts with the server");
}

void judge_gtid(const ReplicaOptionFacts& facts, const Configuration& configuration, std::vector<Check>& out) {
  if (!facts.source_is_known || facts.source_has_gtid || facts.family == Family::mariadb) return;
  if (const auto mode = configuration.first("gtid_mode", turned_on)) {
    out.push_back(failed_check(
        kOptions,
        printed(*mode, "gtid_mode") + ": the source has no GTIDs, and a server that insists on them cannot follow it",
        "set gtid_mode=OFF here, or turn GTIDs on at the source and take a new snapshot"));
  }
}

}  // namespace

std::vector<Check> check_replica_options(const ReplicaOptionFacts& facts) {
  const Configuration configuration(facts);
  std::vector<Check> out;
  judge_cluster(facts, configuration, out);
  judge_gtid(facts, configuration, out);
  for (const OptionRule& rule : kRules) {
    std::istringstream names{std::string(rule.names)};
    for (std::string name; names >> name;) {
      const auto set = configuration.first(name, rule.bad);
      if (!set) continue;
      out.push_back({std::string(rule.check), rule.result, printed(*set, name) + ": " + std::string(rule.why),
                     rule.result == Check::Result::failed
                         ? "take that out of the server's configuration"
                         : "take that out of the server's configuration if it is not meant",
                     Code::failed_precondition});
      break;
    }
  }
  return out;
}

std::vector<OptionLine> options_of(const std::vector<std::string>& arguments, const std::string& where) {
  std::vector<OptionLine> out;
  for (const std::string& argument : arguments) {
    if (!argument.starts_with("--") || argument.size() < 3) continue;
    const std::size_t equals = argument.find('=');
    OptionLine line{where, 0, "mysqld", argument.substr(2, equals == std::string::npos ? equals : equals - 2), ""};
    if (equals != std::string::npos) line.value = argument.substr(equals + 1);
    std::replace(line.name.begin(), line.name.end(), '-', '_');
    if (line.name.starts_with("loose_")) line.name.erase(0, 6);
    out.push_back(std::move(line));
  }
  return out;
}

std::vector<OptionLine> command_line_options(int pid) {
  std::string text;
  try {
    text = read_file("/proc/" + std::to_string(pid) + "/cmdline", 1 << 20);
  } catch (const Error&) {
    // It has ended, or is not ours to look at: then the option files are all that can be looked at.
    return {};
  }
  std::vector<std::string> arguments;
  std::istringstream in(text);
  for (std::string argument; std::getline(in, argument, '\0');) arguments.push_back(argument);
  return options_of(arguments, "the server's command line");
}

std::vector<std::string> not_in_force(const std::string& managed_text,
                                      const std::map<std::string, std::string>& running) {
  constexpr std::array<std::string_view, 5> not_compared = {"log_bin", "relay_log", "report_host", "report_port",
                                                            "ignore_db_dirs"};
  std::vector<std::string> out;
  std::istringstream in(managed_text);
  for (std::string text; std::getline(in, text);) {
    const std::size_t equals = text.find(" = ");
    if (text.starts_with('#') || equals == std::string::npos) continue;
    std::string name = text.substr(0, equals);
    const std::string wanted = text.substr(equals + 3);
    if (name.starts_with("loose_")) name.erase(0, 6);
    const auto now = running.find(name);
    if (now == running.end() || std::find(not_compared.begin(), not_compared.end(), name) != not_compared.end())
      continue;
    // MariaDB 12 has levels of read_only, all of which are not OFF.
    const bool some_level = name == "read_only" && !now->second.empty() && !turned_off(now->second);
    const bool holds = wanted == "ON"    ? turned_on(now->second) || some_level
                       : wanted == "OFF" ? turned_off(now->second)
                                         : upper(now->second) == upper(wanted);
    if (!holds) out.push_back(name + " is " + now->second + ", not " + wanted);
  }
  return out;
}

}  // namespace guestagent::mysql

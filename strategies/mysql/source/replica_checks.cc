#include "strategies/mysql/source/replica_checks.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "base/file.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kShown = 60;  // bytes of a statement in a message

std::string_view hazard_trimmed(std::string_view text) {
  const auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return text;
}

std::string hazard_lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// Statements without comments, in order. What stands in quotes ends none.
std::vector<std::string> statements_of(std::string_view sql) {
  std::vector<std::string> out(1);
  char quote = 0;
  for (std::size_t i = 0; i < sql.size(); ++i) {
    const char c = sql[i];
    const std::string_view rest = sql.substr(i);
    if (quote != 0) {
      if (c == '\\' && quote != '`' && i + 1 < sql.size()) {
        out.back() += c;
        out.back() += sql[++i];
        continue;
      }
      if (c == quote) quote = 0;
    } else if (c == '#' || rest.starts_with("-- ") || rest.starts_with("--\n")) {
      const std::size_t end = rest.find('\n');
      if (end == std::string_view::npos) break;
      i += end;
      out.back() += '\n';
      continue;
    } else if (rest.starts_with("/*") && !rest.starts_with("/*!") && !rest.starts_with("/*M!")) {
      const std::size_t end = rest.find("*/", 2);
      if (end == std::string_view::npos) break;
      i += end + 1;
      out.back() += ' ';
      continue;
    } else if (c == ';') {
      out.emplace_back();
      continue;
    } else if (c == '\'' || c == '"' || c == '`') {
      quote = c;
    }
    out.back() += c;
  }
  for (std::string& each : out) each = std::string(hazard_trimmed(each));
  std::erase(out, "");
  return out;
}

std::string start_of(const std::string& statement) {
  if (statement.size() <= kShown) return statement;
  std::size_t end = kShown;
  // Not in the middle of a character.
  while (end > 0 && (static_cast<unsigned char>(statement[end]) & 0xC0U) == 0x80U) --end;
  return statement.substr(0, end) + "…";
}

std::string hazard_variable(ServerClient& client, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const auto value = client.variable(name)) return *value;
  }
  return "";
}

Check failed_hazard(std::string name, std::string message, std::string hint) {
  return {std::move(name), Check::Result::failed, std::move(message), std::move(hint), Code::failed_precondition};
}

}  // namespace

std::string first_logged_change(std::string_view sql) {
  static constexpr std::array<std::string_view, 9> kHarmless = {"set",   "select", "show",  "use",     "do",
                                                                "begin", "commit", "start", "rollback"};
  for (const std::string& statement : statements_of(sql)) {
    const std::string lower = hazard_lower(statement);
    const std::string word = lower.substr(0, lower.find_first_of(" \t\r\n("));
    if (std::find(kHarmless.begin(), kHarmless.end(), word) == kHarmless.end()) return statement;
    if (word != "set") continue;
    std::string tight;
    std::copy_if(lower.begin(), lower.end(), std::back_inserter(tight),
                 [](unsigned char c) { return std::isspace(c) == 0; });
    for (const char* const off : {"sql_log_bin=0", "sql_log_bin=off", "sql_log_bin:=0", "sql_log_bin:=off"}) {
      if (tight.find(off) != std::string::npos) return "";
    }
  }
  return "";
}

ReplicaHazards read_replica_hazards(ServerClient& client) {
  ReplicaHazards out;
  out.init_replica = hazard_variable(client, {"init_slave", "init_replica"});
  out.init_file = hazard_variable(client, {"init_file"});
  if (!out.init_file.empty()) {
    try {
      out.init_file_text = read_file(out.init_file);
    } catch (const Error&) {
      out.init_file_text.reset();  // it is told below that nobody knows what stands in it
    }
  }
  out.row_triggers = hazard_variable(client, {"slave_run_triggers_for_rbr"});
  out.skips_grants = client.skips_grants();
  return out;
}

std::vector<Check> check_replica_hazards(const ReplicaHazards& hazards) {
  std::vector<Check> out;
  const std::string unlogged = ", or SET sql_log_bin=0 before it";
  if (const std::string change = first_logged_change(hazards.init_replica); !change.empty()) {
    out.push_back(failed_hazard("init_slave",
                                "init_slave (init_replica) has \"" + start_of(change) +
                                    "\": at each start of replication the replica would write a transaction of its own",
                                "take that statement out of init_slave in the server's option files" + unlogged));
  }
  if (!hazards.init_file.empty() && !hazards.init_file_text) {
    out.push_back({"init_file", Check::Result::warning,
                   "init_file: " + hazards.init_file +
                       " cannot be read here: what it changes at a start, the replica would have of its own",
                   "see that it changes no data" + unlogged, Code::failed_precondition});
  }
  if (const std::string change = first_logged_change(hazards.init_file_text.value_or("")); !change.empty()) {
    out.push_back(failed_hazard("init_file",
                                "init_file: " + hazards.init_file + " has \"" + start_of(change) +
                                    "\": at each start of the server the replica would write a transaction of its own",
                                "take that statement out of the file" + unlogged));
  }
  if (hazards.row_triggers == "ENFORCE") {
    out.push_back(failed_hazard(
        "triggers", "slave_run_triggers_for_rbr is ENFORCE: triggers that ran on the source would run here once more",
        "slave_run_triggers_for_rbr=NO (or YES) in the server's option files, and a restart"));
  }
  if (hazards.skips_grants) {
    out.push_back(failed_hazard("skip_grant_tables",
                                "the server was started with skip_grant_tables: the agent's own account cannot be made "
                                "again on the restored data",
                                "take skip_grant_tables out of the server's option files and restart it"));
  }
  return out;
}

}  // namespace guestagent::mysql

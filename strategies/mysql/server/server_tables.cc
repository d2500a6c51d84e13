// What the server client sees of tables and their files, and by what it knows a server's data again.
#include <algorithm>

#include "base/log.h"
#include "strategies/mysql/server/server_client.h"
#include "strategies/mysql/server/server_client_state.h"

namespace guestagent::mysql {
namespace {

constexpr int kNoSuchTable = 1146;  // a table of performance_schema that this version does not have
constexpr int kNoSuchView = 1109;   // the same of information_schema
constexpr std::string_view kNotOurs =
    "TABLE_TYPE NOT IN ('VIEW','SYSTEM VIEW') AND TABLE_SCHEMA NOT IN "
    "('mysql','information_schema','performance_schema','sys')";

// A look at a table that not every version has.
Rows look_if_there(SqlConnection& connection, const std::string& query) {
  try {
    return connection.read(query);
  } catch (const SqlError& e) {
    if (e.number() != kNoSuchTable && e.number() != kNoSuchView) throw;
    return {};
  }
}

std::vector<std::string> first_column(const Rows& rows) {
  std::vector<std::string> out;
  out.reserve(rows.size());
  for (const auto& row : rows.rows) out.push_back(row.at(0).value_or(""));
  return out;
}

}  // namespace

std::map<std::string, std::string> ServerClient::variables() {
  return all_variables(state_->connection);
}

bool ServerClient::in_a_group() {
  if (dialect().family == Family::mariadb) return false;
  // A server with the plugin and without a group is shown as OFFLINE.
  return !look_if_there(
              state_->connection,
              "SELECT 1 FROM performance_schema.replication_group_members WHERE MEMBER_STATE<>'OFFLINE' LIMIT 1")
              .empty();
}

std::vector<std::pair<std::string, std::string>> ServerClient::applier_filters() {
  if (dialect().family == Family::mariadb) return {};
  std::vector<std::pair<std::string, std::string>> out;
  for (const char* table : {"replication_applier_global_filters", "replication_applier_filters"}) {
    const Rows rows =
        look_if_there(state_->connection, "SELECT LOWER(FILTER_NAME) AS n, FILTER_RULE AS r FROM performance_schema." +
                                              std::string(table) + " WHERE CONFIGURED_BY LIKE 'STARTUP%'");
    for (std::size_t i = 0; i < rows.size(); ++i) out.emplace_back(rows.text(i, "n"), rows.text(i, "r"));
  }
  return out;
}

std::string ServerClient::keyring_component() {
  if (dialect().family == Family::mariadb) return "";
  const Rows rows = look_if_there(
      state_->connection, "SELECT STATUS_KEY AS k, STATUS_VALUE AS v FROM performance_schema.keyring_component_status");
  std::string name;
  bool active = false;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows.text(i, "k") == "Component_name") name = rows.text(i, "v");
    if (rows.text(i, "k") == "Component_status") active = rows.text(i, "v") == "Active";
  }
  return active ? name : "";
}

DataMark ServerClient::data_mark(const std::string& replication_user) {
  DataMark out;
  if (dialect().gtid == GtidKind::mysql) out.server_uuid = state_->connection.read("SELECT @@server_uuid").scalar();
  out.account =
      !state_->connection.read("SELECT 1 FROM mysql.user WHERE User=" + quote_text(replication_user) + " LIMIT 1")
           .empty();
  // Those of a fresh server have the same numbers everywhere.
  out.tables = first_column(
      state_->connection.read("SELECT CONCAT(TABLE_ID,' ',NAME) FROM " + std::string(dialect().innodb_tables) +
                              " WHERE NAME LIKE '%/%' AND NAME NOT LIKE 'mysql/%' AND NAME NOT LIKE 'sys/%' AND NAME "
                              "NOT LIKE '%#sql%' ORDER BY TABLE_ID LIMIT 1000"));
  return out;
}

std::optional<std::string> why_other_data(const DataMark& then, const DataMark& now) {
  if (!then.server_uuid.empty() && then.server_uuid != now.server_uuid) {
    return "its server_uuid is " + now.server_uuid + ", and was " + then.server_uuid + " at the private start";
  }
  if (then.account && !now.account)
    return std::string("the replication account of the snapshot, which came with the copy, is not there");
  // Somebody may drop or truncate a table as soon as the server is up: one that is gone proves nothing.
  const auto known =
      static_cast<std::size_t>(std::count_if(then.tables.begin(), then.tables.end(), [&](const std::string& table) {
        return std::find(now.tables.begin(), now.tables.end(), table) != now.tables.end();
      }));
  if (2 * known < then.tables.size()) {
    return std::to_string(then.tables.size() - known) + " of the " + std::to_string(then.tables.size()) +
           " tables of the copy that were looked for are not there";
  }
  return std::nullopt;
}

std::vector<TableName> ServerClient::tables_in_files() {
  // A server may be told to pass over what its clients say of their character set; names must come, and go back, as
  // they are.
  state_->connection.ensure();
  state_->connection.run("SET NAMES utf8mb4");
  // Engines that keep rows in memory, elsewhere or nowhere have nothing here that a copy could lack. NULL: what
  // describes the table cannot be read, or its engine is not here.
  const Rows rows = state_->connection.read(
      "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS t, ENGINE AS e FROM information_schema.TABLES WHERE " +
      std::string(kNotOurs) +
      " AND (ENGINE IS NULL OR LOWER(ENGINE) IN "
      "('innodb','aria','myisam','archive','csv','rocksdb','tokudb','partition')) ORDER BY 1, 2");
  std::vector<TableName> out;
  out.reserve(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i)
    out.push_back({rows.text(i, "s"), rows.text(i, "t"), rows.text(i, "e"), 0});
  return out;
}

std::optional<TableFault> ServerClient::why_not_opened(const std::string& schema, const std::string& name) {
  try {
    state_->connection.read("SELECT 1 FROM " + quote_name(schema) + "." + quote_name(name) + " LIMIT 0");
    return std::nullopt;
  } catch (const SqlError& e) {
    if (e.code() == Code::unavailable) throw;
    return TableFault{e.number(), e.what()};
  }
}

std::vector<std::string> ServerClient::unopenable_tables() {
  if (!dialect().looking_opens) return {};
  state_->connection.ensure();
  // The first look at a MEMORY table after a start makes the server log that it is empty.
  const WithoutBinlog quiet(state_->connection, true);
  const ShortLockWait hurry(state_->connection);
  try {
    return first_column(
        state_->connection.run("SELECT CONCAT(TABLE_SCHEMA,'.',TABLE_NAME) FROM information_schema.TABLES WHERE " +
                               std::string(kNotOurs) + " AND ENGINE IS NULL AND CREATE_OPTIONS IS NULL ORDER BY 1"));
  } catch (const Error& e) {
    if (e.code() != Code::deadline_exceeded) throw;
    log_warning(
        "a statement that runs holds a table that it makes: whether all tables can be opened was not looked at");
    return {};
  }
}

std::vector<std::string> ServerClient::encrypted_tables() {
  if (dialect().encrypted_tables.empty()) return {};
  return first_column(look_if_there(state_->connection, std::string(dialect().encrypted_tables)));
}

}  // namespace guestagent::mysql

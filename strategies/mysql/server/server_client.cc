#include "strategies/mysql/server/server_client.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "strategies/mysql/server/gtid.h"
#include "strategies/mysql/server/server_client_state.h"

namespace guestagent::mysql {
namespace {

using Variables = std::map<std::string, std::string>;

std::string text_of(const Variables& variables, const std::string& name) {
  const auto it = variables.find(name);
  return it == variables.end() ? "" : it->second;
}

std::uint64_t number_of(const Variables& variables, const std::string& name) {
  const std::string text = text_of(variables, name);
  std::uint64_t out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

bool on(const Variables& variables, const std::string& name) {
  const std::string text = text_of(variables, name);
  return text == "ON" || text == "1" || text == "YES";
}

// MySQL names one capacity since 8.0.30; before that, and in MariaDB, it is files times size.
std::uint64_t redo_capacity(const Variables& variables) {
  if (const std::uint64_t whole = number_of(variables, "innodb_redo_log_capacity"); whole != 0) return whole;
  return number_of(variables, "innodb_log_file_size") *
         std::max<std::uint64_t>(1, number_of(variables, "innodb_log_files_in_group"));
}

}  // namespace

std::map<std::string, std::string> all_variables(SqlConnection& connection) {
  const Rows rows = connection.read("SHOW GLOBAL VARIABLES");
  Variables out;
  for (const auto& row : rows.rows) {
    std::string name = row.at(0).value_or("");
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    out[name] = row.at(1).value_or("");
  }
  return out;
}

ServerClient::ServerClient(ConnectTarget target) : state_(std::make_unique<State>(std::move(target))) {}
ServerClient::~ServerClient() = default;
ServerClient::ServerClient(ServerClient&&) noexcept = default;
ServerClient& ServerClient::operator=(ServerClient&&) noexcept = default;

const ConnectTarget& ServerClient::target() const {
  return state_->connection.target();
}

void ServerClient::ping() {
  state_->connection.read("SELECT 1");
}

void ServerClient::wait_until_up(Millis timeout, Clock& clock, std::stop_token stop,
                                 const std::function<bool()>& alive) {
  const SteadyTime deadline = clock.steady() + timeout;
  for (;;) {
    try {
      ping();
      // Another version may answer now than before.
      state_->version.reset();
      state_->dialect = nullptr;
      return;
    } catch (const Error& e) {
      if (e.code() != Code::unavailable) throw;
      if (alive && !alive()) {
        throw Error(Code::unavailable, std::string("waiting for the server: its process ended: ") + e.what(),
                    "see the server's error log");
      }
      if (clock.steady() >= deadline) {
        throw Error(Code::deadline_exceeded,
                    std::string("waiting for the server: it did not answer in time: ") + e.what(),
                    "see the server's error log; mysql.server.start_timeout is the limit");
      }
    }
    if (!clock.sleep(Millis(50), stop)) throw Error(Code::cancelled, "waiting for the server: cancelled on request");
  }
}

ServerVersion ServerClient::version() {
  if (!state_->version) {
    const Rows rows = state_->connection.read("SELECT @@version AS v, @@version_comment AS c");
    state_->version = parse_server_version(rows.text(0, "v"), rows.text(0, "c"));
  }
  return *state_->version;
}

const Dialect& ServerClient::dialect() {
  if (state_->dialect == nullptr) state_->dialect = &dialect_for(version());
  return *state_->dialect;
}

ServerIdentity ServerClient::identity() {
  const Variables all = all_variables(state_->connection);
  ServerIdentity out;
  out.version_text = text_of(all, "version");
  out.version_comment = text_of(all, "version_comment");
  out.version = parse_server_version(out.version_text, out.version_comment);
  state_->version = out.version;
  state_->dialect = &dialect_for(out.version);

  out.server_id = static_cast<std::uint32_t>(number_of(all, "server_id"));
  out.server_uuid = state_->dialect->gtid == GtidKind::mysql ? text_of(all, "server_uuid") : "";
  out.hostname = text_of(all, "hostname");
  out.data_dir = text_of(all, "datadir");
  if (!out.data_dir.has_filename()) out.data_dir = out.data_dir.parent_path();
  out.socket = text_of(all, "socket");
  out.pid_file = text_of(all, "pid_file");
  out.port = static_cast<std::uint16_t>(number_of(all, "port"));
  out.networking = !on(all, "skip_networking");
  out.log_bin = on(all, "log_bin");
  out.log_bin_basename = text_of(all, "log_bin_basename");
  out.binlog_format = text_of(all, "binlog_format");
  out.log_updates = on(all, std::string(state_->dialect->log_updates));
  out.gtid_on = state_->dialect->gtid == GtidKind::mariadb ||
                (state_->dialect->gtid == GtidKind::mysql && text_of(all, "gtid_mode") == "ON");
  // MariaDB 12 has read_only as a list of words; OFF is OFF in each.
  out.read_only = !text_of(all, "read_only").empty() && text_of(all, "read_only") != "OFF";
  out.super_read_only = on(all, "super_read_only");
  out.event_scheduler = on(all, "event_scheduler");
  out.event_scheduler_disabled = text_of(all, "event_scheduler") == "DISABLED";
  out.tls = on(all, "have_ssl") || !text_of(all, "ssl_cert").empty();
  out.page_size = number_of(all, "innodb_page_size");
  out.lower_case_table_names = static_cast<unsigned>(number_of(all, "lower_case_table_names"));
  out.redo_bytes = redo_capacity(all);
  out.innodb_home = text_of(all, "innodb_data_home_dir");
  out.redo_dir = text_of(all, "innodb_log_group_home_dir");
  out.undo_dir = text_of(all, "innodb_undo_directory");
  out.innodb_data_file_path = text_of(all, "innodb_data_file_path");
  out.relay_log_basename = text_of(all, "relay_log_basename");
  out.undo_tablespaces = number_of(all, "innodb_undo_tablespaces");
  out.max_connections = number_of(all, "max_connections");

  const Rows plugins = state_->connection.read(
      "SELECT PLUGIN_NAME FROM information_schema.PLUGINS WHERE PLUGIN_STATUS='ACTIVE' AND PLUGIN_LIBRARY IS "
      "NOT NULL "
      "ORDER BY PLUGIN_NAME");
  for (const auto& row : plugins.rows) out.plugins.push_back(row.at(0).value_or(""));
  return out;
}

std::optional<std::string> ServerClient::variable(const std::string& name) {
  const Rows rows = state_->connection.read("SHOW GLOBAL VARIABLES WHERE Variable_name=" + quote_text(name));
  return rows.get(0, "Value");
}

bool ServerClient::has_user_data() {
  // An installer's empty `test` and the directory that mkfs leaves in a file system are nobody's data.
  const std::string query =
      "SELECT 1 FROM information_schema.SCHEMATA s WHERE LOWER(s.SCHEMA_NAME) NOT IN "
      "('mysql','information_schema','performance_schema','sys','#mysql50#lost+found') AND (s.SCHEMA_NAME<>'test' "
      "OR EXISTS (SELECT 1 FROM information_schema.TABLES t WHERE t.TABLE_SCHEMA='test') "
      "OR EXISTS (SELECT 1 FROM information_schema.ROUTINES r WHERE r.ROUTINE_SCHEMA='test') "
      "OR EXISTS (SELECT 1 FROM " +
      std::string(dialect().events) + " e WHERE e.db='test')) LIMIT 1";
  return state_->connection.read(query).size() != 0;
}

std::uint64_t ServerClient::data_bytes() {
  if (!read_quietly()) return 0;
  const Rows rows = state_->connection.read(
      "SELECT CAST(COALESCE(SUM(DATA_LENGTH+INDEX_LENGTH),0) AS UNSIGNED) AS n FROM "
      "information_schema.TABLES "
      "WHERE TABLE_SCHEMA NOT IN ('information_schema','performance_schema')");
  return rows.number(0, "n");
}

std::uint64_t ServerClient::redo_written() {
  return state_->connection.read("SHOW GLOBAL STATUS LIKE 'Innodb_os_log_written'").number(0, "Value");
}

bool ServerClient::has_rows(const TableName& table) {
  return !state_->connection
              .read("SELECT 1 FROM " + quote_name(table.schema) + "." + quote_name(table.name) + " LIMIT 1")
              .empty();
}

bool ServerClient::read_quietly() {
  if (replica_status().empty()) return true;
  try {
    state_->connection.run("SET SESSION sql_log_bin=0");
    return true;
  } catch (const SqlError& e) {
    if (e.code() != Code::permission_denied) throw;
    return false;
  }
}

std::vector<TableName> ServerClient::user_tables(bool with_bytes) {
  std::optional<ShortLockWait> hurry;
  if (!with_bytes) hurry.emplace(state_->connection);
  const std::string bytes = with_bytes ? "CAST(COALESCE(DATA_LENGTH,0)+COALESCE(INDEX_LENGTH,0) AS UNSIGNED)" : "0";
  const Rows rows = state_->connection.read(
      "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS t, ENGINE AS e, " + bytes +
      " AS b FROM information_schema.TABLES WHERE TABLE_TYPE='BASE TABLE' AND TABLE_SCHEMA NOT IN "
      "('mysql','information_schema','performance_schema','sys') ORDER BY 1, 2");
  std::vector<TableName> out;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    out.push_back({rows.text(i, "s"), rows.text(i, "t"), rows.text(i, "e"), rows.number(i, "b")});
  }
  return out;
}

std::vector<std::string> ServerClient::tables_elsewhere() {
  const std::string query(dialect().tablespace_paths);
  const Rows rows = state_->connection.read(query);
  const Rows dirs = state_->connection.read("SELECT @@datadir AS d");
  const std::string data_dir = fs::path(dirs.text(0, "d")).lexically_normal().string();
  std::vector<std::string> out;
  for (const auto& row : rows.rows) {
    const fs::path path(row.at(0).value_or(""));
    // System, undo and temporary files may be configured elsewhere; what a table's clause places is an .ibd.
    if (!path.is_absolute() || path.extension() != ".ibd") continue;
    if (!path.lexically_normal().string().starts_with(data_dir)) out.push_back(path.string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::uint64_t ServerClient::open_temporary_tables() {
  return state_->connection
      .read("SHOW GLOBAL STATUS WHERE Variable_name IN ('Slave_open_temp_tables', 'Replica_open_temp_tables')")
      .number(0, "Value");
}

std::vector<std::string> ServerClient::enabled_events() {
  const Rows rows = state_->connection.read("SELECT CONCAT(e.db,'.',e.name) FROM " + std::string(dialect().events) +
                                            " e WHERE e.status='ENABLED' ORDER BY 1");
  std::vector<std::string> out;
  for (const auto& row : rows.rows) out.push_back(row.at(0).value_or(""));
  return out;
}

BinlogStatus ServerClient::binlog_status() {
  const Dialect& words = dialect();
  BinlogStatus out;
  // The set first: the pair of file and offset may then be later than it, never earlier.
  const std::string gtid = gtid_binlog();
  const Rows rows = state_->connection.read(std::string(words.show_binlog_status));
  if (rows.empty()) {
    throw Error(Code::failed_precondition, "reading the binary log's position: the binary log is off",
                "log_bin in the server's option file, then a restart");
  }
  out.position.file = rows.text(0, "File");
  out.position.offset = rows.number(0, "Position");
  // An empty set is a place; without GTIDs there is none.
  if (words.gtid == GtidKind::mariadb || (words.gtid == GtidKind::mysql && variable("gtid_mode") == "ON"))
    out.position.gtid = gtid;
  out.do_db = rows.text(0, "Binlog_Do_DB");
  out.ignore_db = rows.text(0, "Binlog_Ignore_DB");
  return out;
}

std::vector<BinlogFile> ServerClient::binlog_files() {
  const Rows rows = state_->connection.read("SHOW BINARY LOGS");
  std::vector<BinlogFile> out;
  for (std::size_t i = 0; i < rows.size(); ++i) out.push_back({rows.text(i, "Log_name"), rows.number(i, "File_size")});
  return out;
}

std::string ServerClient::gtid_executed() {
  if (dialect().gtid == GtidKind::none) return "";
  return state_->connection.read("SELECT " + std::string(dialect().gtid_executed)).scalar();
}

std::string ServerClient::gtid_binlog() {
  if (dialect().gtid == GtidKind::none) return "";
  return state_->connection.read("SELECT " + std::string(dialect().gtid_binlog)).scalar();
}

std::string ServerClient::gtid_known() {
  const GtidKind kind = dialect().gtid;
  const std::string logged = gtid_binlog();
  if (kind != GtidKind::mariadb) return logged;
  const std::string current = gtid_executed();
  return GtidSet::parse(kind, logged + (logged.empty() || current.empty() ? "" : ",") + current).position().text();
}

std::string ServerClient::gtid_start() {
  if (dialect().gtid == GtidKind::none) return "";
  return state_->connection.read("SELECT @@global." + std::string(dialect().gtid_start)).scalar();
}

}  // namespace guestagent::mysql

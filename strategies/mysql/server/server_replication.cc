// The server client's replication, as a replica.
#include <algorithm>
#include <array>
#include <set>

#include "strategies/mysql/server/server_client.h"
#include "strategies/mysql/server/server_client_state.h"

namespace guestagent::mysql {
namespace {

constexpr int kNotConfigured = 1200;
constexpr int kAlreadyRunning = 1254;
constexpr int kNotRunning = 1255;

ThreadState thread_state(const std::string& word) {
  if (word == "Yes") return ThreadState::running;
  // "Preparing": the thread is connected and asks for the binary log.
  if (word == "Connecting" || word == "Preparing") return ThreadState::connecting;
  return ThreadState::stopped;
}

constexpr std::array kFilterColumns = {
    "Replicate_Do_DB",         "Replicate_Ignore_DB",         "Replicate_Do_Table",         "Replicate_Ignore_Table",
    "Replicate_Wild_Do_Table", "Replicate_Wild_Ignore_Table", "Replicate_Ignore_Server_Ids"};

// GTID sets of MySQL come with line breaks after commas.
std::string one_line(std::string text) {
  std::erase_if(text, [](char c) { return c == '\n' || c == '\r' || c == ' '; });
  return text;
}

ReplicaStatus read_status(const Rows& rows, std::size_t i, const Dialect& dialect) {
  const StatusColumns& c = dialect.words->columns;
  ReplicaStatus out;
  out.channel = rows.text(i, c.channel);
  out.source_host = rows.text(i, c.source_host);
  out.source_user = rows.text(i, c.source_user);
  out.source_uuid = rows.text(i, c.source_uuid);
  out.source_port = static_cast<std::uint16_t>(rows.number(i, c.source_port));
  out.source_server_id = static_cast<std::uint32_t>(rows.number(i, c.source_server_id));
  out.io = thread_state(rows.text(i, c.io_running));
  out.sql = thread_state(rows.text(i, c.sql_running));
  out.io_state = rows.text(i, c.io_state);
  out.sql_state = rows.text(i, c.sql_state);
  if (const std::string file = rows.text(i, c.received_file); !file.empty()) {
    out.received.file = file;
    out.received.offset = rows.number(i, c.received_offset);
  }
  if (const std::string file = rows.text(i, c.applied_file); !file.empty()) {
    out.applied.file = file;
    out.applied.offset = rows.number(i, c.applied_offset);
  }
  if (const auto set = rows.get(i, c.gtid_received); set && !set->empty()) out.received.gtid = one_line(*set);
  if (const auto set = rows.get(i, c.gtid_applied); set && !set->empty()) out.applied.gtid = one_line(*set);
  const std::string mode = rows.text(i, c.gtid_mode);
  out.by_gtid = !mode.empty() && mode != "No" && mode != "0";
  const std::string tls = rows.text(i, c.tls);
  out.tls = tls == "Yes";
  if (const auto seconds = rows.get(i, c.seconds_behind)) out.seconds_behind = rows.number(i, c.seconds_behind);
  out.delay = rows.number(i, c.delay);
  if (rows.get(i, c.remaining_delay)) out.remaining_delay = rows.number(i, c.remaining_delay);
  out.relay_log_bytes = rows.number(i, "Relay_Log_Space");
  out.io_errno = static_cast<unsigned>(rows.number(i, c.io_errno));
  out.sql_errno = static_cast<unsigned>(rows.number(i, c.sql_errno));
  out.io_error = rows.text(i, c.io_error);
  out.sql_error = rows.text(i, c.sql_error);
  out.io_error_at = rows.text(i, c.io_error_time);
  out.sql_error_at = rows.text(i, c.sql_error_time);
  for (const char* const column : kFilterColumns) {
    if (!rows.text(i, column).empty()) out.filters.emplace_back(column);
  }
  return out;
}

// Runs `f`; the server's answer that there is nothing to do is no error.
template <typename F>
void unless(std::initializer_list<int> harmless, F&& f) {
  try {
    f();
  } catch (const SqlError& e) {
    if (std::find(harmless.begin(), harmless.end(), e.number()) == harmless.end()) throw;
  }
}

// A number of seconds with its fraction, for functions that take one.
std::string seconds_text(Millis duration) {
  const std::int64_t ms = std::max<std::int64_t>(1, duration.count());
  std::string fraction = std::to_string(ms % 1000);
  return std::to_string(ms / 1000) + "." + std::string(3 - fraction.size(), '0') + fraction;
}

std::string without(std::string text, const Secret& secret) {
  const std::string& hidden = secret.reveal();
  for (std::size_t at = text.find(hidden); !hidden.empty() && at != std::string::npos; at = text.find(hidden, at + 3)) {
    text.replace(at, hidden.size(), "***");
  }
  return text;
}

}  // namespace

std::vector<ReplicaStatus> ServerClient::replica_status() {
  const Dialect& words = dialect();
  const Rows rows = state_->connection.read(std::string(words.words->show_replica_status));
  std::vector<ReplicaStatus> out;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ReplicaStatus status = read_status(rows, i, words);
    // What RESET without ALL, or a copy, leaves behind: a channel without a source.
    if (status.source_host.empty() && status.io == ThreadState::stopped && status.sql == ThreadState::stopped) continue;
    out.push_back(std::move(status));
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.channel < b.channel; });
  return out;
}

void ServerClient::change_source(const NewSource& source) {
  const Dialect& words = dialect();
  const std::string prefix = std::string(words.words->option_prefix) + "_";
  SqlConnection& connection = state_->connection;
  std::string sql(words.words->change_source);
  sql += " " + prefix + "HOST=" + quote_text(source.host);
  const auto option = [&](std::string_view name, const std::string& value) {
    sql += ", " + prefix + std::string(name) + "=" + value;
  };
  option("PORT", std::to_string(source.port));
  option("USER", quote_text(source.user));
  option("PASSWORD", quote_text(source.password.reveal()));
  option("CONNECT_RETRY", std::to_string(source.connect_retry_s));
  option("HEARTBEAT_PERIOD", std::to_string(source.heartbeat_s));
  option("SSL", source.tls ? "1" : "0");
  const bool verify = source.tls && !source.ca_file.empty();
  if (verify) option("SSL_CA", quote_text(source.ca_file.string()));
  option("SSL_VERIFY_SERVER_CERT", verify ? "1" : "0");
  if (!words.source_options.empty()) sql += ", " + std::string(words.source_options);
  if (!source.by_gtid && words.gtid != GtidKind::none) sql += ", " + std::string(words.gtid_option_off);
  if (source.by_gtid) {
    sql += ", " + std::string(words.gtid_option);
  } else {
    option("LOG_FILE", quote_text(source.file));
    option("LOG_POS", std::to_string(source.offset));
  }
  with_context("pointing the replica at " + source.host + ":" + std::to_string(source.port), [&] {
    connection.ensure();
    // The statement has the password in it: no slow log, and no general log either, where the right to say so
    // is there.
    connection.run("SET SESSION long_query_time=31536000");
    bool quiet = true;
    try {
      connection.run("SET SESSION sql_log_off=1");
    } catch (const SqlError& e) {
      if (e.code() != Code::permission_denied) throw;
      quiet = false;
    }
    try {
      connection.run(sql);
    } catch (const SqlError& e) {
      // A server's complaint about a statement may quote it.
      throw SqlError(e.code(), e.number(), without(e.what(), source.password), e.hint());
    }
    if (quiet) connection.run("SET SESSION sql_log_off=0");
    connection.run("SET SESSION long_query_time=DEFAULT");
  });
}

void ServerClient::start_from(const std::string& gtid) {
  with_context("setting where replication starts", [&] {
    // gtid_purged can be set only where nothing is executed.
    if (dialect().gtid == GtidKind::mysql) reset_binlogs();
    state_->connection.run("SET GLOBAL " + std::string(dialect().gtid_start) + "=" + quote_text(gtid));
  });
}

void ServerClient::start_replica() {
  unless({kAlreadyRunning}, [&] { state_->connection.run("START " + std::string(dialect().words->replica)); });
}

void ServerClient::stop_replica() {
  unless({kNotConfigured, kNotRunning}, [&] { state_->connection.run(std::string(dialect().words->stop_all)); });
}

void ServerClient::start_receiving() {
  unless({kAlreadyRunning},
         [&] { state_->connection.run("START " + std::string(dialect().words->replica) + " IO_THREAD"); });
}

void ServerClient::start_applying() {
  unless({kAlreadyRunning},
         [&] { state_->connection.run("START " + std::string(dialect().words->replica) + " SQL_THREAD"); });
}

void ServerClient::stop_receiving() {
  unless({kNotRunning},
         [&] { state_->connection.run("STOP " + std::string(dialect().words->replica) + " IO_THREAD"); });
}

void ServerClient::reset_replica_all() {
  const Dialect& words = dialect();
  const Rows rows = state_->connection.read(std::string(words.words->show_replica_status));
  std::vector<std::string> channels = {""};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (const std::string channel = rows.text(i, words.words->columns.channel); !channel.empty())
      channels.push_back(channel);
  }
  // One statement serves all channels where the pattern names none.
  if (words.words->reset_channel.find('{') == std::string_view::npos) channels.resize(1);
  for (const std::string& channel : channels) {
    unless({kNotConfigured}, [&] {
      state_->connection.run(fill(words.words->reset_channel, {{"channel", quote_text(channel)}}));
    });
  }
}

void ServerClient::clear_gtid_start() {
  if (dialect().gtid == GtidKind::mariadb) state_->connection.run("SET GLOBAL gtid_slave_pos=''");
}

bool ServerClient::wait_applied(const std::string& gtid, Millis slice) {
  const Dialect& words = dialect();
  if (gtid.empty()) return true;
  const std::string answer =
      state_->connection
          .read("SELECT " + std::string(words.gtid_wait) + "(" + quote_text(gtid) + ", " +
                (words.gtid == GtidKind::mariadb ? seconds_text(slice)
                                                 : std::to_string(std::max<std::int64_t>(1, slice.count() / 1000))) +
                ")")
          .scalar();
  if (answer == words.gtid_wait_timed_out) return false;
  if (answer.empty()) {
    throw Error(Code::failed_precondition, "waiting for " + gtid + ": the replica does not apply transactions",
                "see the replica's status for its error");
  }
  return true;
}

bool ServerClient::wait_applied(const std::string& file, std::uint64_t offset, Millis slice) {
  const std::string seconds = std::to_string(std::max<std::int64_t>(1, slice.count() / 1000));
  const std::string answer = state_->connection
                                 .read("SELECT " + std::string(dialect().words->position_wait) + "(" +
                                       quote_text(file) + ", " + std::to_string(offset) + ", " + seconds + ")")
                                 .scalar();
  if (answer.empty()) {
    throw Error(Code::failed_precondition,
                "waiting for " + file + ":" + std::to_string(offset) + ": the replica does not apply transactions",
                "see the replica's status for its error");
  }
  return answer != "-1";
}

void ServerClient::set_read_only(bool on) {
  const Dialect& words = dialect();
  // Turning read_only off leaves super_read_only as it was, and turning super_read_only on sets read_only
  // too: one statement each way.
  if (words.super_read_only) state_->connection.run(std::string("SET GLOBAL super_read_only=") + (on ? "1" : "0"));
  state_->connection.run(std::string("SET GLOBAL read_only=") + (on ? "1" : "0"));
}

bool ServerClient::try_refuse_writes(Seconds patience) {
  SqlConnection& connection = state_->connection;
  connection.ensure();
  connection.run("SET SESSION lock_wait_timeout=" + std::to_string(std::max<std::int64_t>(1, patience.count())));
  try {
    set_read_only(true);
    connection.run("SET SESSION lock_wait_timeout=60");
    return true;
  } catch (const SqlError& e) {
    connection.close();  // and a statement that still waits with it
    if (e.code() != Code::deadline_exceeded) throw;
    return false;
  }
}

std::vector<OpenWrite> ServerClient::open_writes() {
  const Rows rows = state_->connection.read(
      "SELECT t.trx_id AS TRX, p.ID AS ID, p.USER AS USER, p.HOST AS HOST, "
      "GREATEST(TIMESTAMPDIFF(SECOND, t.trx_started, NOW()), 0) AS AGE "
      "FROM information_schema.innodb_trx t JOIN " +
      std::string(dialect().processlist) +
      " p ON p.ID=t.trx_mysql_thread_id WHERE t.trx_rows_modified>0 AND p.USER<>'system user'");
  std::vector<OpenWrite> out;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    out.push_back(
        {rows.text(i, "TRX"), rows.number(i, "ID"), rows.text(i, "USER"), rows.text(i, "HOST"), rows.number(i, "AGE")});
  }
  return out;
}

std::vector<std::string> ServerClient::who_passes_read_only() {
  if (dialect().super_read_only) return {};
  std::set<std::string> names;
  const auto add = [&](const std::string& query) {
    const Rows rows = state_->connection.read(query);
    for (std::size_t i = 0; i < rows.size(); ++i) names.insert(rows.text(i, "GRANTEE"));
  };
  add("SELECT DISTINCT GRANTEE FROM information_schema.user_privileges WHERE PRIVILEGE_TYPE IN (" +
      std::string(dialect().passes_read_only) + ")");
  if (!dialect().passes_by_role.empty()) add(std::string(dialect().passes_by_role));
  names.erase(state_->connection
                  .read("SELECT CONCAT(QUOTE(SUBSTRING_INDEX(CURRENT_USER(),'@',1)),'@',"
                        "QUOTE(SUBSTRING_INDEX(CURRENT_USER(),'@',-1)))")
                  .scalar());
  return {names.begin(), names.end()};
}

bool ServerClient::refuses_all_writes() {
  if (dialect().super_read_only) return variable("super_read_only") == "ON";
  return variable("read_only") == "NO_LOCK_NO_ADMIN";
}

void ServerClient::refuse_all_writes(bool on) {
  const std::string setting = dialect().super_read_only
                                  ? std::string("super_read_only=") + (on ? "1" : "0")
                                  : std::string("read_only=") + (on ? "'NO_LOCK_NO_ADMIN'" : "'NO_LOCK'");
  with_context("changing whether the server refuses every writer",
               [&] { state_->connection.run("SET GLOBAL " + setting); });
}

void ServerClient::set_event_scheduler(bool on) {
  // DISABLED at the server's start cannot be changed, and is off.
  if (!on && variable("event_scheduler") == "DISABLED") return;
  state_->connection.run(std::string("SET GLOBAL event_scheduler=") + (on ? "1" : "0"));
}

void ServerClient::set_server_id(std::uint32_t id) {
  state_->connection.run("SET GLOBAL server_id=" + std::to_string(id));
}

void ServerClient::shutdown() {
  try {
    state_->connection.run("SHUTDOWN");
  } catch (const SqlError& e) {
    // The answer may be lost with the server.
    if (e.number() != 2013 && e.number() != 2006) throw;
  }
  state_->connection.close();
}

}  // namespace guestagent::mysql

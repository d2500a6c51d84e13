// The server client's accounts, sessions and purge settings.
#include "strategies/mysql/server/account_hash.h"
#include "strategies/mysql/server/server_client.h"
#include "strategies/mysql/server/server_client_state.h"

namespace guestagent::mysql {
namespace {

constexpr int kNoSuchSession = 1094;
constexpr int kSkipGrantTables = 1290;
constexpr int kNoSuchAccount = 1396;

bool exists(SqlConnection& connection, const std::string& user, const std::string& host) {
  return !connection.read("SELECT 1 FROM mysql.user WHERE User=" + quote_text(user) + " AND Host=" + quote_text(host))
              .empty();
}

// Of a line of SHOW GRANTS.
bool only_replicates(std::string_view grant) {
  constexpr std::string_view kGrant = "GRANT ", kOn = " ON *.* TO ";
  const std::size_t end = grant.find(kOn);
  if (!grant.starts_with(kGrant) || end == std::string_view::npos ||
      grant.find(" WITH GRANT OPTION") != std::string_view::npos)
    return false;
  std::string_view rights = grant.substr(kGrant.size(), end - kGrant.size());
  bool replicates = false;
  while (!rights.empty()) {
    const std::size_t comma = rights.find(", ");
    const std::string_view right = rights.substr(0, comma);
    rights.remove_prefix(comma == std::string_view::npos ? rights.size() : comma + 2);
    if (right == "REPLICATION SLAVE") {
      replicates = true;
    } else if (right != "BINLOG MONITOR" && right != "REPLICATION CLIENT") {
      return false;
    }
  }
  return replicates;
}

}  // namespace

WithoutBinlog::WithoutBinlog(SqlConnection& connection, bool active) : connection_(connection), active_(active) {
  if (active_) connection_.run("SET SESSION sql_log_bin=0");
}

WithoutBinlog::~WithoutBinlog() {
  if (!active_) return;
  // A session that cannot be put back must not be used again: the next statement gets a new one.
  try {
    connection_.run("SET SESSION sql_log_bin=1");
  } catch (const Error&) {
    connection_.close();
  }
}

void ServerClient::create_replication_account(const std::string& user, const std::string& host, const Secret& password,
                                              bool require_tls, bool log) {
  const Dialect& words = dialect();
  SqlConnection& connection = state_->connection;
  const std::string account = quote_account(user, host);
  const std::string hash = quote_text(account_hash(words.account_hash, password));
  with_context("creating the replication account " + user, [&] {
    connection.ensure();
    const WithoutBinlog quiet(connection, !log);
    if (exists(connection, user, host)) connection.run("DROP USER " + account);
    connection.run(fill(words.create_account, {{"account", account},
                                               {"hash", hash},
                                               {"limit", std::to_string(kAccountLimit)},
                                               {"lasting", std::string(words.lasting)},
                                               {"require", require_tls ? std::string(words.require_in_create) : ""}}));
    connection.run(fill(words.grant_replication, {{"account", account},
                                                  {"require", require_tls ? " REQUIRE SSL" : ""},
                                                  {"limit", std::to_string(kAccountLimit)}}));
  });
}

void ServerClient::drop_account(const std::string& user, const std::string& host, bool log) {
  SqlConnection& connection = state_->connection;
  with_context("dropping the account " + user, [&] {
    connection.ensure();
    // One that was never made, or is gone, needs no right to write.
    if (!exists(connection, user, host)) return;
    const WithoutBinlog quiet(connection, !log);
    try {
      connection.run(std::string(dialect().drop_account) + " " + quote_account(user, host));
    } catch (const SqlError& e) {
      if (e.number() != kNoSuchAccount) throw;
    }
  });
}

bool ServerClient::account_exists(const std::string& user, const std::string& host) {
  return exists(state_->connection, user, host);
}

std::vector<ReplicationAccount> ServerClient::replication_accounts(const std::string& prefix) {
  const Rows rows = state_->connection.read(
      "SELECT User AS u, Host AS h, max_user_connections AS n FROM mysql.user WHERE LEFT(User, " +
      std::to_string(prefix.size()) + ")=" + quote_text(prefix) + " ORDER BY 1, 2");
  std::vector<ReplicationAccount> out;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::string user = rows.text(i, "u"), host = rows.text(i, "h");
    const Rows grants = state_->connection.read("SHOW GRANTS FOR " + quote_account(user, host));
    if (grants.size() != 1 || !only_replicates(grants.rows[0].at(0).value_or(""))) continue;
    out.push_back({user, host, rows.number(i, "n") == kAccountLimit});
  }
  return out;
}

void ServerClient::make_agent_account(const std::string& user, const std::string& host, const Secret& password) {
  const Dialect& words = dialect();
  SqlConnection& connection = state_->connection;
  const std::string account = quote_account(user, host);
  const std::string identified =
      password.empty() ? std::string(words.by_peer)
                       : fill(words.by_hash, {{"hash", quote_text(account_hash(words.account_hash, password))}});
  const std::string rights = user == "root" ? "ALL PRIVILEGES" : std::string(words.agent_privileges);
  with_context("making the agent's own account " + user, [&] {
    connection.ensure();
    const WithoutBinlog quiet(connection, true);
    const auto make = [&] {
      const bool there = exists(connection, user, host);
      if (there && !words.alter_account) connection.run("DROP USER " + account);
      const bool alter = there && words.alter_account;
      connection.run((alter ? "ALTER USER " : "CREATE USER ") + account + " " + identified +
                     std::string(words.lasting));
      connection.run("GRANT " + rights + " ON *.* TO " + account + " WITH GRANT OPTION");
    };
    try {
      make();
    } catch (const SqlError& e) {
      if (e.number() != kSkipGrantTables) throw;
      // A server started without its grant tables takes account statements once it has read them.
      connection.run("FLUSH PRIVILEGES");
      make();
    }
  });
}

bool ServerClient::skips_grants() {
  try {
    state_->connection.read("SHOW GRANTS");
    return false;
  } catch (const SqlError& e) {
    if (e.number() == 1290) return true;
    throw;
  }
}

std::vector<std::string> ServerClient::password_validators() {
  if (variable("strict_password_validation") != "ON") return {};
  const Rows rows = state_->connection.read(
      "SELECT PLUGIN_NAME FROM information_schema.PLUGINS WHERE PLUGIN_STATUS='ACTIVE' AND PLUGIN_TYPE='PASSWORD "
      "VALIDATION' ORDER BY 1");
  std::vector<std::string> out;
  for (const auto& row : rows.rows) out.push_back(row.at(0).value_or(""));
  return out;
}

std::vector<std::string> ServerClient::own_grants() {
  const Rows rows = state_->connection.read("SHOW GRANTS");
  std::vector<std::string> out;
  for (const auto& row : rows.rows) out.push_back(row.at(0).value_or(""));
  return out;
}

std::vector<DumpThread> ServerClient::dump_threads(const std::string& user) {
  const Rows rows = state_->connection.read("SELECT ID, USER, HOST FROM " + std::string(dialect().processlist) +
                                            " WHERE COMMAND LIKE 'Binlog Dump%' AND USER=" + quote_text(user));
  std::vector<DumpThread> out;
  for (std::size_t i = 0; i < rows.size(); ++i)
    out.push_back({rows.number(i, "ID"), rows.text(i, "USER"), rows.text(i, "HOST")});
  return out;
}

std::vector<Session> ServerClient::sessions() {
  const Rows rows =
      state_->connection.read("SELECT ID, USER, HOST, COMMAND, TIME, STATE, LEFT(INFO, 200) AS INFO FROM " +
                              std::string(dialect().processlist));
  std::vector<Session> out;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    out.push_back({rows.number(i, "ID"), rows.text(i, "USER"), rows.text(i, "HOST"), rows.text(i, "COMMAND"),
                   rows.text(i, "STATE"), rows.text(i, "INFO"), rows.number(i, "TIME")});
  }
  return out;
}

void ServerClient::kill_session(std::uint64_t id) {
  try {
    state_->connection.run("KILL " + std::to_string(id));
  } catch (const SqlError& e) {
    if (e.number() != kNoSuchSession) throw;
  }
}

std::uint64_t ServerClient::uptime_s() {
  return state_->connection.read("SHOW GLOBAL STATUS LIKE 'Uptime'").number(0, "Value");
}

std::vector<std::pair<std::string, std::string>> ServerClient::purge_settings() {
  std::vector<std::pair<std::string, std::string>> out;
  for (const std::string_view name : dialect().purge_variables) {
    if (const auto value = variable(std::string(name))) out.emplace_back(name, *value);
  }
  return out;
}

void ServerClient::set_purge_setting(const std::string& name, const std::string& value) {
  // Only what the dialect lists is set, and only to a number.
  bool known = false;
  for (const std::string_view each : dialect().purge_variables) known = known || each == name;
  if (!known || value.empty() || value.find_first_not_of("0123456789.") != std::string::npos) {
    throw Error(Code::invalid_argument, "setting the binary log's expiry: " + name + ": not a setting of this server");
  }
  state_->connection.run("SET GLOBAL " + name + "=" + value);
}

void ServerClient::flush_binlog() {
  state_->connection.run("FLUSH BINARY LOGS");
}

void ServerClient::reset_binlogs() {
  state_->connection.run(std::string(dialect().reset_binlogs));
}

}  // namespace guestagent::mysql

// The server client's part of cloning.
#include "strategies/mysql/server/server_client.h"
#include "strategies/mysql/server/server_client_state.h"

namespace guestagent::mysql {
namespace {

constexpr int kNoSuchPlugin = 1305;
constexpr int kPluginThere = 1125;
constexpr int kPluginInUse = 1883;

std::string clone_statement(const fs::path& dir) {
  return "CLONE LOCAL DATA DIRECTORY=" + quote_text(dir.string());
}

}  // namespace

bool ServerClient::has_clone_plugin() {
  return !state_->connection
              .read("SELECT 1 FROM information_schema.PLUGINS WHERE PLUGIN_NAME='clone' AND PLUGIN_STATUS='ACTIVE'")
              .empty();
}

bool ServerClient::may_load_plugins() {
  const std::string mine =
      " WHERE PRIVILEGE_TYPE='INSERT' AND GRANTEE=CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')";
  return !state_->connection
              .read("SELECT 1 FROM information_schema.USER_PRIVILEGES" + mine +
                    " UNION ALL SELECT 1 FROM information_schema.SCHEMA_PRIVILEGES" + mine +
                    " AND TABLE_SCHEMA='mysql'" + " UNION ALL SELECT 1 FROM information_schema.TABLE_PRIVILEGES" +
                    mine + " AND TABLE_SCHEMA='mysql' AND TABLE_NAME='plugin'")
              .empty();
}

void ServerClient::install_clone_plugin() {
  with_context("loading the clone plugin", [&] {
    try {
      // The server writes nothing of it to its binary log.
      state_->connection.run("INSTALL PLUGIN clone SONAME 'mysql_clone.so'");
    } catch (const SqlError& e) {
      if (e.number() != kPluginThere) throw;
    }
  });
}

void ServerClient::uninstall_clone_plugin() {
  with_context("unloading the clone plugin", [&] {
    try {
      state_->connection.run("UNINSTALL PLUGIN clone");
    } catch (const SqlError& e) {
      if (e.number() == kPluginInUse) throw Error(Code::failed_precondition, e.what(), e.hint());
      if (e.number() != kNoSuchPlugin) throw;
    }
  });
}

void ServerClient::clone_into(const fs::path& dir) {
  with_context("cloning the server into " + dir.string(), [&] { state_->connection.run(clone_statement(dir)); });
}

std::vector<std::uint64_t> ServerClient::clones_into(const fs::path& dir) {
  const std::string statement = clone_statement(dir);
  std::vector<std::uint64_t> out;
  for (const Session& session : sessions()) {
    // The list may show less than all of a long statement.
    if (!session.info.empty() && statement.starts_with(session.info)) out.push_back(session.id);
  }
  return out;
}

std::pair<std::uint64_t, std::uint64_t> ServerClient::clone_progress() {
  const Rows rows = state_->connection.read(
      "SELECT CAST(COALESCE(SUM(DATA),0) AS UNSIGNED) AS done, CAST(COALESCE(SUM(ESTIMATE),0) AS UNSIGNED) AS whole "
      "FROM performance_schema.clone_progress");
  return {rows.number(0, "done"), rows.number(0, "whole")};
}

Position ServerClient::cloned_position() {
  const Rows rows = state_->connection.read(
      "SELECT BINLOG_FILE, BINLOG_POSITION, GTID_EXECUTED FROM performance_schema.clone_status");
  Position out;
  if (const std::string file = rows.empty() ? "" : rows.text(0, "BINLOG_FILE"); !file.empty()) {
    out.file = file;
    out.offset = rows.number(0, "BINLOG_POSITION");
  }
  return out;
}

}  // namespace guestagent::mysql

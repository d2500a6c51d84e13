// What the parts of the server client share; nobody else includes this.
#pragma once

#include <map>
#include <optional>

#include "strategies/mysql/server/sql_connection.h"

namespace guestagent::mysql {

struct ServerClient::State {
  explicit State(ConnectTarget target) : connection(std::move(target)) {}

  SqlConnection connection;
  std::optional<ServerVersion> version;
  const Dialect* dialect = nullptr;
  bool reading_consistently = false;
};

// Statements of one session that must not be written to the binary log, while it lives.
class WithoutBinlog {
 public:
  WithoutBinlog(SqlConnection& connection, bool active);
  ~WithoutBinlog();
  WithoutBinlog(const WithoutBinlog&) = delete;
  WithoutBinlog& operator=(const WithoutBinlog&) = delete;

 private:
  SqlConnection& connection_;
  bool active_;
};

// A second for statements that hold a table, instead of the session's minute, while it lives: past it
// deadline_exceeded. On some servers a list of tables waits for a statement that makes one (CREATE TABLE … SELECT) for
// as long as that runs.
class ShortLockWait {
 public:
  explicit ShortLockWait(SqlConnection& connection) : connection_(connection) {
    connection_.run("SET SESSION lock_wait_timeout=1");
  }
  ~ShortLockWait() {
    try {
      connection_.run("SET SESSION lock_wait_timeout=60");
    } catch (const Error&) {  // a new connection begins with that
    }
  }
  ShortLockWait(const ShortLockWait&) = delete;
  ShortLockWait& operator=(const ShortLockWait&) = delete;

 private:
  SqlConnection& connection_;
};

// All global variables, lower-case names.
std::map<std::string, std::string> all_variables(SqlConnection& connection);

}  // namespace guestagent::mysql

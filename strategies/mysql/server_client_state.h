// What the parts of the server client share; nobody else includes this.
#pragma once

#include <map>
#include <optional>

#include "strategies/mysql/sql_connection.h"

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

// All global variables, lower-case names.
std::map<std::string, std::string> all_variables(SqlConnection& connection);

}  // namespace guestagent::mysql

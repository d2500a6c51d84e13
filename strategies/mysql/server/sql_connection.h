// The wire to the server, for the server client alone: nobody else includes this. The one user of
// Connector/C++.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// A server's answer, all of it in memory.
class Rows {
 public:
  std::vector<std::string> columns;
  std::vector<std::vector<std::optional<std::string>>> rows;

  bool empty() const { return rows.empty(); }
  std::size_t size() const { return rows.size(); }
  // The value of a column by its name (in any case); nullopt for NULL and for a column that is not there.
  std::optional<std::string> get(std::size_t row, std::string_view column) const;
  std::string text(std::size_t row, std::string_view column) const { return get(row, column).value_or(""); }
  std::uint64_t number(std::size_t row, std::string_view column) const;  // 0 for NULL and what is no number
  // Of the first row and column: "" when there is none or it is NULL.
  std::string scalar() const;
};

// A server's refusal, with its number.
class SqlError : public Error {
 public:
  SqlError(Code code, int number, const std::string& message, std::string hint)
      : Error(code, message, std::move(hint)), number_(number) {}
  int number() const { return number_; }

 private:
  int number_;
};

class SqlConnection {
 public:
  explicit SqlConnection(ConnectTarget target);
  ~SqlConnection();

  const ConnectTarget& target() const { return target_; }
  // Connects unless connected.
  void ensure();
  void close();

  // A statement that may be sent twice: sent again once on a new connection when the old one was lost.
  Rows read(const std::string& sql);
  // A statement that may not; nor may one that depends on what was said in the session before.
  Rows run(const std::string& sql);
  // Of this session; connects first.
  std::uint64_t connection_id();

 private:
  struct State;
  Rows send(const std::string& sql);
  ConnectTarget target_;
  std::unique_ptr<State> state_;
};

// 'text', escaped for a session with an empty sql_mode and utf8mb4, which every SqlConnection has. Throws
// invalid_argument for a zero byte.
std::string quote_text(std::string_view text);

// Replaces each {name} of `pattern` by its value.
std::string fill(std::string_view pattern, std::initializer_list<std::pair<std::string_view, std::string>> values);

}  // namespace guestagent::mysql

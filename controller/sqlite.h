// SQLite, as little of it as the controller's state needs. The library is confined to sqlite.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/file.h"

struct sqlite3;
struct sqlite3_stmt;

namespace guestagent::controller {

// A value bound to a `?` of a statement. Views live until the call that takes them returns.
class SqlValue {
 public:
  SqlValue(std::nullptr_t) {}
  SqlValue(bool v) : value_(std::int64_t{v}) {}
  SqlValue(int v) : value_(std::int64_t{v}) {}
  SqlValue(std::int64_t v) : value_(v) {}
  SqlValue(std::uint64_t v) : value_(static_cast<std::int64_t>(v)) {}
  SqlValue(const char* v) : value_(std::string_view(v)) {}
  SqlValue(std::string_view v) : value_(v) {}
  SqlValue(const std::string& v) : value_(std::string_view(v)) {}
  const auto& get() const { return value_; }

 private:
  std::variant<std::nullptr_t, std::int64_t, std::string_view> value_ = nullptr;
};

// The current row of a query. Columns count from 0; NULL is an empty text and 0.
class SqlRow {
 public:
  explicit SqlRow(sqlite3_stmt* statement) : statement_(statement) {}
  std::string text(int column) const;
  std::int64_t integer(int column) const;
  std::uint64_t uint(int column) const { return static_cast<std::uint64_t>(integer(column)); }
  bool boolean(int column) const { return integer(column) != 0; }
  bool null(int column) const;

 private:
  sqlite3_stmt* statement_;
};

// One connection. Not thread-safe. Every method throws Error: already_exists for a value that must be unique,
// failed_precondition for a row that others refer to, resource_exhausted for a full disk, data_loss for a
// damaged file, else internal.
class Sqlite {
 public:
  // Opens or creates the file (mode 0600), in WAL mode, with foreign keys, durable commits and deleted bytes
  // overwritten.
  explicit Sqlite(const fs::path& file);
  ~Sqlite();
  Sqlite(const Sqlite&) = delete;
  Sqlite& operator=(const Sqlite&) = delete;

  // Statements without parameters, several at once.
  void script(const char* sql);
  void run(const char* sql, std::initializer_list<SqlValue> values = {});
  void each(const char* sql, std::initializer_list<SqlValue> values, const std::function<void(const SqlRow&)>& row);
  template <typename T>
  std::vector<T> all(const char* sql, std::initializer_list<SqlValue> values, T (*read)(const SqlRow&)) {
    std::vector<T> out;
    each(sql, values, [&](const SqlRow& row) { out.push_back(read(row)); });
    return out;
  }
  template <typename T>
  std::optional<T> one(const char* sql, std::initializer_list<SqlValue> values, T (*read)(const SqlRow&)) {
    std::optional<T> out;
    each(sql, values, [&](const SqlRow& row) { out = read(row); });
    return out;
  }
  std::int64_t number(const char* sql, std::initializer_list<SqlValue> values = {});
  std::int64_t changes() const;
  std::int64_t last_id() const;

 private:
  struct Cache;
  sqlite3_stmt* prepared(const char* sql);
  void bind(sqlite3_stmt* statement, std::initializer_list<SqlValue> values);
  Error failure(const char* sql) const;

  fs::path file_;
  sqlite3* db_ = nullptr;
  std::unique_ptr<Cache> cache_;
};

}  // namespace guestagent::controller

#include "controller/sqlite.h"

#include <fcntl.h>
#include <sqlite3.h>

#include <cerrno>
#include <unordered_map>

namespace guestagent::controller {
namespace {

constexpr int kBusyMs = 10000;

// Puts the statement back, whatever happened while its rows were read.
class Use {
 public:
  explicit Use(sqlite3_stmt* statement) : statement_(statement) {}
  ~Use() {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  sqlite3_stmt* statement_;
};

}  // namespace

// Statements are string literals, and there are few of them.
struct Sqlite::Cache {
  std::unordered_map<std::string_view, sqlite3_stmt*> statements;
  ~Cache() {
    for (auto& [sql, statement] : statements) sqlite3_finalize(statement);
  }
};

std::string SqlRow::text(int column) const {
  const auto* bytes = sqlite3_column_text(statement_, column);
  if (bytes == nullptr) return {};
  return {reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

std::int64_t SqlRow::integer(int column) const {
  return sqlite3_column_int64(statement_, column);
}

bool SqlRow::null(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

Sqlite::Sqlite(const fs::path& file) : file_(file), cache_(std::make_unique<Cache>()) {
  // Made by us first, so that its mode is right from its first byte; SQLite gives its WAL the same mode.
  const UniqueFd made(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!made) throw system_error("opening the state database " + file.string(), errno);
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
  if (sqlite3_open_v2(file.c_str(), &db_, flags, nullptr) != SQLITE_OK) {
    const Error error = failure("open");
    sqlite3_close(db_);
    throw error;
  }
  try {
    sqlite3_extended_result_codes(db_, 1);
    sqlite3_busy_timeout(db_, kBusyMs);
    script("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA secure_delete=ON;");
  } catch (const Error&) {
    sqlite3_close(db_);
    throw;
  }
}

Sqlite::~Sqlite() {
  cache_.reset();
  sqlite3_close(db_);
}

Error Sqlite::failure(const char* sql) const {
  const int code = sqlite3_extended_errcode(db_);
  const std::string message = "using the state database " + file_.string() + ": " + sqlite3_errmsg(db_);
  switch (code) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
      return Error(Code::already_exists, message);
    case SQLITE_CONSTRAINT_FOREIGNKEY:
      return Error(Code::failed_precondition, message);
    default:
      break;
  }
  switch (code & 0xff) {
    case SQLITE_FULL:
      return Error(Code::resource_exhausted, message, "free space on that file system");
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Error(Code::data_loss, message,
                   "put a copy of the database back, or move it away and register the hosts again");
    case SQLITE_BUSY:
      return Error(Code::unavailable, message, "another process has the database open");
    default:
      return Error(Code::internal, message + " (" + std::string(sql).substr(0, 60) + ")");
  }
}

void Sqlite::script(const char* sql) {
  if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) throw failure(sql);
}

sqlite3_stmt* Sqlite::prepared(const char* sql) {
  const auto found = cache_->statements.find(sql);
  if (found != cache_->statements.end()) return found->second;
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v3(db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr) != SQLITE_OK) throw failure(sql);
  cache_->statements.emplace(sqlite3_sql(statement), statement);
  return statement;
}

void Sqlite::bind(sqlite3_stmt* statement, std::initializer_list<SqlValue> values) {
  int index = 0;
  for (const SqlValue& value : values) {
    ++index;
    int result = SQLITE_OK;
    if (const auto* number = std::get_if<std::int64_t>(&value.get())) {
      result = sqlite3_bind_int64(statement, index, *number);
    } else if (const auto* text = std::get_if<std::string_view>(&value.get())) {
      result = sqlite3_bind_text(statement, index, text->empty() ? "" : text->data(), static_cast<int>(text->size()),
                                 SQLITE_STATIC);
    } else {
      result = sqlite3_bind_null(statement, index);
    }
    if (result != SQLITE_OK) throw failure(sqlite3_sql(statement));
  }
}

void Sqlite::run(const char* sql, std::initializer_list<SqlValue> values) {
  each(sql, values, [](const SqlRow&) {});
}

void Sqlite::each(const char* sql, std::initializer_list<SqlValue> values,
                  const std::function<void(const SqlRow&)>& row) {
  sqlite3_stmt* statement = prepared(sql);
  const Use use(statement);
  bind(statement, values);
  for (;;) {
    const int result = sqlite3_step(statement);
    if (result == SQLITE_DONE) return;
    if (result != SQLITE_ROW) throw failure(sql);
    row(SqlRow(statement));
  }
}

std::int64_t Sqlite::number(const char* sql, std::initializer_list<SqlValue> values) {
  std::int64_t out = 0;
  each(sql, values, [&](const SqlRow& row) { out = row.integer(0); });
  return out;
}

std::int64_t Sqlite::changes() const {
  return sqlite3_changes(db_);
}
std::int64_t Sqlite::last_id() const {
  return sqlite3_last_insert_rowid(db_);
}

}  // namespace guestagent::controller

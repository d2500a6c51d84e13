#include "strategies/mysql/server/sql_connection.h"

#include <cppconn/exception.h>
#include <cppconn/resultset.h>
#include <cppconn/resultset_metadata.h>
#include <cppconn/statement.h>
#include <mysql_connection.h>
#include <mysql_driver.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <mutex>

#include "base/host_name.h"
#include "base/unique_fd.h"
#include "strategies/mysql/server/session_words.h"

namespace guestagent::mysql {
namespace {

bool same_name(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    if (lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

// 2026 is TLS's word for a connection that was reset.
bool connection_lost(int number) {
  return number == 2006 || number == 2013 || number == 2026 || number == 2055;
}

SqlError translate(const sql::SQLException& e, const ConnectTarget& target) {
  const int number = e.getErrorCode();
  const std::string message =
      "asking the server: " + target.describe() + ": " + e.what() + " (error " + std::to_string(number) + ")";
  switch (number) {
    case 2002:
    case 2003:
    case 2005:
    case 2006:
    case 2013:
    case 2026:
    case 2055:
    case 1053:  // shutdown in progress
    case 1927:  // connection was killed
    case 4031:  // inactivity
      return {Code::unavailable, number, message,
              target.host.empty() ? "is the server running, and is mysql.socket the socket it listens on?"
                                  : "is that address reachable from this host, and the server running?"};
    case 1040:  // too many connections
    case 1203:  // of this user, by max_user_connections
    case 1226:  // by the account's own limit
      return {Code::unavailable, number, message,
              "all connections that the server allows are in use: end some, or raise max_connections "
              "(max_user_connections)"};
    case 1129:  // after too many broken connections
      return {Code::unavailable, number, message, "the server blocks this host: FLUSH HOSTS there"};
    case 1184:  // said in place of an answer to the first statement, by MariaDB 11 at the login already
      return {Code::failed_precondition, number, message,
              "the server ends this account's sessions as they begin: does its init_connect do what the account may "
              "not do?"};
    case 3159:  // require_secure_transport
      return {Code::failed_precondition, number, message,
              "the server takes connections by TLS only (require_secure_transport): mysql.require_tls on the source's "
              "agent must not be no"};
    case 1820:
    case 1862:
      return {Code::permission_denied, number, message,
              "the account's password has expired: ALTER USER … PASSWORD EXPIRE NEVER"};
    case 3118:  // locked
    case 3955:  // after failed logins
    case 4150:  // max_password_errors
    case 4151:
      return {Code::permission_denied, number, message,
              "the account is locked: ALTER USER … ACCOUNT UNLOCK, or FLUSH PRIVILEGES"};
    case 1044:
    case 1045:
    case 1142:
    case 1143:
    case 1227:
    case 1410:
    case 1698:
    case 2061:
      return {Code::permission_denied, number, message,
              target.host.empty()
                  ? "check mysql.user, mysql.password_file or mysql.client_file, and that account's rights"
                  : "check the account's password, host and rights"};
    case 1130:  // host not allowed
      return {Code::permission_denied, number, message, "the account's host part does not allow this host"};
    case 1205:
    case 1317:
    case 1969:
    case 3024:
      return {Code::deadline_exceeded, number, message, "the server gave up waiting; try again when it is less busy"};
    case 1021:
    case 1041:
    case 1037:
    case 3019:
      return {Code::resource_exhausted, number, message, "free space or memory on the server"};
    default:
      return {Code::internal, number, message, ""};
  }
}

// Connector/C++ makes its one driver at the first call, without a lock of its own.
sql::mysql::MySQL_Driver& driver() {
  static std::mutex mutex;
  const std::scoped_lock lock(mutex);
  return *sql::mysql::get_driver_instance();
}

// What the client library may answer when a server asks for another way to log in. Whoever stands in the server's place
// chooses that way, so none is here that hands the password over as it is (mysql_clear_password, dialog,
// mysql_old_password).
constexpr std::string_view kLoginWays =
    "mysql_native_password,caching_sha2_password,client_ed25519,parsec,auth_gssapi_client";
constexpr std::string_view kLocalLoginWays =
    "mysql_native_password,caching_sha2_password,client_ed25519,parsec,auth_gssapi_client,sha256_password,auth_socket,"
    "unix_socket";

// The connector has no option for these, the library has, in an option file: one that only this process sees, or, in a
// root without /proc (a disk image that is being made), one of its own for as long as this lives.
class LibraryOptions {
 public:
  explicit LibraryOptions(bool local) {
    const char* const what = "making the client library's options";
    UniqueFd file(::memfd_create("client-options", MFD_CLOEXEC));
    path_ = "/proc/self/fd/" + std::to_string(file.get());
    if (!file || ::access(path_.c_str(), R_OK) != 0) {
      path_ = "/tmp/guestagent-client-XXXXXX";
      file.reset(::mkostemp(path_.data(), O_CLOEXEC));
      if (!file) throw system_error(std::string(what) + ": " + path_, errno);
      named_ = true;
    }
    const std::string text =
        "[client]\nrestricted-auth=" + std::string(local ? kLocalLoginWays : kLoginWays) + "\ndisable-local-infile\n";
    // The library takes a file that it cannot read for an empty one.
    if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
      const int err = errno;
      if (named_) ::unlink(path_.c_str());
      throw system_error(what, err);
    }
    file_ = std::move(file);
  }
  ~LibraryOptions() {
    if (named_) ::unlink(path_.c_str());
  }
  LibraryOptions(const LibraryOptions&) = delete;
  LibraryOptions& operator=(const LibraryOptions&) = delete;
  const std::string& path() const { return path_; }

 private:
  UniqueFd file_;
  std::string path_;
  bool named_ = false;
};

// What a server sets for everybody must not change what we say or hear: our quoting is right only in this mode and
// character set, waits must not be ended, and a session is to write what it is told to. In comments what only some
// versions know. Before it kNoLimits is said, by the connector, which asks the server something before we can.
constexpr const char* kOwnSession[] = {
    "SET SESSION sql_mode='', autocommit=1, character_set_client=utf8mb4, character_set_results=utf8mb4, "
    "collation_connection=utf8mb4_general_ci, time_zone='+00:00', sql_safe_updates=0, sql_auto_is_null=0, "
    "completion_type=0, "
    "group_concat_max_len=1048576, lock_wait_timeout=60, wait_timeout=86400, net_read_timeout=600, "
    "net_write_timeout=600 "
    "/*M!100300 , idle_transaction_timeout=0, idle_readonly_transaction_timeout=0, idle_write_transaction_timeout=0 */",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE",
};

int seconds_of(Millis duration) {
  return static_cast<int>(std::max<std::int64_t>(1, duration.count() / 1000));
}

}  // namespace

std::optional<std::string> Rows::get(std::size_t row, std::string_view column) const {
  if (row >= rows.size() || column.empty()) return std::nullopt;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (same_name(columns[i], column)) return rows[row][i];
  }
  return std::nullopt;
}

std::uint64_t Rows::number(std::size_t row, std::string_view column) const {
  const std::string value = text(row, column);
  std::uint64_t out = 0;
  std::from_chars(value.data(), value.data() + value.size(), out);
  return out;
}

std::string Rows::scalar() const {
  return rows.empty() || rows[0].empty() ? "" : rows[0][0].value_or("");
}

struct SqlConnection::State {
  std::unique_ptr<sql::Connection> connection;
};

SqlConnection::SqlConnection(ConnectTarget target) : target_(std::move(target)), state_(std::make_unique<State>()) {}
SqlConnection::~SqlConnection() {
  close();
}

void SqlConnection::close() {
  // The connector's destructor throws nothing, but says good-bye to a server that may be gone.
  try {
    state_->connection.reset();
  } catch (const std::exception&) {
    state_->connection.release();  // NOLINT(bugprone-unused-return-value): broken beyond closing
  }
}

void SqlConnection::ensure() {
  if (state_->connection) return;
  sql::ConnectOptionsMap options;
  if (target_.host.empty()) {
    options["hostName"] = sql::SQLString("unix://" + target_.socket.string());
  } else {
    // The library reads "key=value;…" out of a host, plugins to load among it: nothing but a host gets as far as that.
    const HostName host = HostName::require("connecting to a server", target_.host);
    options["hostName"] = sql::SQLString("tcp://" + host.in_url() + ":" + std::to_string(target_.port));
  }
  const LibraryOptions library(target_.host.empty());
  options["readDefaultFile"] = sql::SQLString(library.path());
  options["readDefaultGroup"] = sql::SQLString("client");
  options["userName"] = sql::SQLString(target_.user);
  options["password"] = sql::SQLString(target_.password.reveal());
  options["OPT_CONNECT_TIMEOUT"] = seconds_of(target_.connect_timeout);
  options["OPT_READ_TIMEOUT"] = seconds_of(target_.read_timeout);
  options["OPT_WRITE_TIMEOUT"] = seconds_of(target_.read_timeout);
  options["OPT_CHARSET_NAME"] = sql::SQLString("utf8mb4");
  options["CLIENT_MULTI_STATEMENTS"] = false;
  options["OPT_LOCAL_INFILE"] = 0;
  options["preInit"] = sql::SQLString(std::string(kNoLimits));
  if (target_.tls) {
    options["sslEnforce"] = true;
    options["sslVerify"] = target_.verify;
    if (!target_.ca_file.empty()) options["sslCA"] = sql::SQLString(target_.ca_file.string());
    if (!target_.certificate.empty()) options["sslCert"] = sql::SQLString(target_.certificate.string());
    if (!target_.key.empty()) options["sslKey"] = sql::SQLString(target_.key.string());
  }
  try {
    state_->connection.reset(driver().connect(options));
    for (const char* const statement : kOwnSession) send(statement);
  } catch (const sql::SQLException& e) {
    close();
    throw translate(e, target_).with_context("connecting");
  } catch (...) {
    close();
    throw;
  }
}

Rows SqlConnection::send(const std::string& sql) {
  try {
    Rows out;
    const std::unique_ptr<sql::Statement> statement(state_->connection->createStatement());
    bool has_rows = statement->execute(sql);
    while (has_rows) {
      const std::unique_ptr<sql::ResultSet> result(statement->getResultSet());
      sql::ResultSetMetaData* const meta = result->getMetaData();
      const unsigned width = meta->getColumnCount();
      out.columns.clear();
      out.rows.clear();
      for (unsigned i = 1; i <= width; ++i) out.columns.push_back(meta->getColumnLabel(i).asStdString());
      while (result->next()) {
        auto& row = out.rows.emplace_back();
        row.reserve(width);
        for (unsigned i = 1; i <= width; ++i) {
          if (result->isNull(i)) {
            row.emplace_back(std::nullopt);
          } else {
            row.emplace_back(result->getString(i).asStdString());
          }
        }
      }
      has_rows = statement->getMoreResults();
    }
    return out;
  } catch (const sql::SQLException& e) {
    if (connection_lost(e.getErrorCode()) || e.getErrorCode() == 1927) close();
    throw translate(e, target_);
  }
}

Rows SqlConnection::read(const std::string& sql) {
  const bool fresh = !state_->connection;
  ensure();
  try {
    return send(sql);
  } catch (const SqlError& e) {
    if (fresh || !(connection_lost(e.number()) || e.number() == 1927)) throw;
  }
  ensure();
  return send(sql);
}

Rows SqlConnection::run(const std::string& sql) {
  ensure();
  return send(sql);
}

std::uint64_t SqlConnection::connection_id() {
  const std::string id = read("SELECT CONNECTION_ID()").scalar();
  std::uint64_t out = 0;
  std::from_chars(id.data(), id.data() + id.size(), out);
  return out;
}

std::string quote_text(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\0') throw Error(Code::invalid_argument, "quoting for SQL: a zero byte in a text");
    if (c == '\'' || c == '\\') out += c;
    out += c;
  }
  return out + "'";
}

std::string quote_name(std::string_view name) {
  if (name.empty() || name.find('\0') != std::string_view::npos) {
    throw Error(Code::invalid_argument, "quoting for SQL: an empty name or a zero byte in one");
  }
  std::string out = "`";
  for (const char c : name) {
    if (c == '`') out += c;
    out += c;
  }
  return out + "`";
}

std::string quote_account(std::string_view user, std::string_view host) {
  return quote_text(user) + "@" + quote_text(host);
}

std::string fill(std::string_view pattern, std::initializer_list<std::pair<std::string_view, std::string>> values) {
  std::string out;
  while (!pattern.empty()) {
    const std::size_t open = pattern.find('{');
    out += pattern.substr(0, open);
    if (open == std::string_view::npos) break;
    const std::size_t close = pattern.find('}', open);
    const std::string_view name = pattern.substr(open + 1, close - open - 1);
    for (const auto& [key, value] : values) {
      if (key == name) out += value;
    }
    pattern.remove_prefix(close + 1);
  }
  return out;
}

}  // namespace guestagent::mysql

#include "tests/support/mariadb_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "base/error.h"
#include "base/unique_fd.h"

namespace guestagent::test {
namespace {

fs::path temp_root() {
  const char* dir = ::getenv("TMPDIR");  // NOLINT(concurrency-mt-unsafe): tests read it before they start threads
  return dir != nullptr && *dir != '\0' ? dir : "/tmp";
}

ChildSpec program(std::vector<std::string> argv) {
  ChildSpec spec;
  spec.argv = std::move(argv);
  return spec;
}

ChildSpec client(const fs::path& socket, const std::string& statements) {
  return program({"mariadb", "--no-defaults", "--batch", "--skip-column-names", "--socket=" + socket.string(),
                  "--user=root", "--default-character-set=utf8mb4", "--execute=" + statements});
}

}  // namespace

std::uint16_t free_port() {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  if (!fd || ::bind(fd.get(), raw, size) != 0 || ::getsockname(fd.get(), raw, &size) != 0) {
    throw system_error("finding a free port", errno);
  }
  return ntohs(address.sin_port);
}

MariadbServer::MariadbServer(MariadbOptions options)
    : options_(std::move(options)), dir_(temp_root(), "guestagent-mariadb-"), port_(free_port()) {
  make_dir(dir() / "tmp", 0700);
  make_dir(dir() / "conf.d");
  std::string text = "[mysqld]\nuser=root\ndatadir=" + data_dir().string() + "\nsocket=" + socket().string() +
                     "\npid_file=" + (dir() / "pid").string() + "\nlog_error=" + (dir() / "error.log").string() +
                     "\ntmpdir=" + (dir() / "tmp").string() + "\nport=" + std::to_string(port_) +
                     "\nbind_address=127.0.0.1\nserver_id=" + std::to_string(options_.server_id) +
                     "\nrelay_log=relay\ninnodb_buffer_pool_size=64M\ninnodb_log_file_size=32M\n"
                     "innodb_flush_log_at_trx_commit=2\nskip_name_resolve=1\n";
  if (options_.log_bin) text += "log_bin=binlog\nlog_slave_updates=1\nbinlog_format=ROW\n";
  for (const std::string& line : options_.lines) text += line + "\n";
  text += "!includedir " + (dir() / "conf.d").string() + "\n";
  write_file_atomic(defaults_file(), text);
  run_and_read(program({"mariadb-install-db", "--defaults-file=" + defaults_file().string(), "--user=root",
                        "--auth-root-authentication-method=socket", "--skip-test-db"}),
               Seconds(120));
  if (options_.start) start();
}

MariadbServer::~MariadbServer() = default;

void MariadbServer::start() {
  child_ = std::make_unique<Child>(program({"mariadbd", "--defaults-file=" + defaults_file().string()}));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  for (;;) {
    if (!running()) {
      child_.reset();
      throw Error(Code::internal, "starting a test server: " + read_file(dir() / "error.log", 1 << 24));
    }
    try {
      sql("SELECT 1");
      return;
    } catch (const Error&) {
      if (std::chrono::steady_clock::now() > deadline) throw;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

void MariadbServer::stop() {
  if (!child_) return;
  child_->kill_group(SIGTERM);
  child_->wait();
  child_.reset();
}

void MariadbServer::kill() {
  child_.reset();
}

bool MariadbServer::running() {
  return child_ && !child_->try_wait().has_value();
}

pid_t MariadbServer::pid() const {
  return child_ ? child_->pid() : -1;
}

std::unique_ptr<Child> MariadbServer::sql_async(const std::string& statements) const {
  return std::make_unique<Child>(client(socket(), statements));
}

std::string MariadbServer::sql(const std::string& statements) const {
  return run_and_read(client(socket(), statements), Seconds(300), std::size_t{64} << 20);
}

MysqlSettings MariadbServer::settings_of(const fs::path& dir) {
  const fs::path defaults = dir / "my.cnf";
  MysqlSettings out;
  out.advertised_address = "127.0.0.1";
  out.socket = dir / "s.sock";
  out.user = "root";
  out.defaults_file = defaults;
  out.managed_file = dir / "conf.d" / "zz-guestagent.cnf";
  out.data_dir = dir / "data";
  out.staging_dir = dir / "staging";
  out.os_user = "root";
  out.server.control = "process";
  out.server.command = {"mariadbd", "--defaults-file=" + defaults.string()};
  return out;
}

}  // namespace guestagent::test

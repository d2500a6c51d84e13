// A real MariaDB server of a test's own: its own directory, socket and free port; gone with everything it
// made when the object dies.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/child.h"
#include "base/file.h"
#include "config/settings.h"

namespace guestagent::test {

struct MariadbOptions {
  std::uint32_t server_id = 1;
  bool log_bin = true;
  std::vector<std::string> lines;  // more lines of its [mysqld] group
  bool start = true;
};

class MariadbServer {
 public:
  explicit MariadbServer(MariadbOptions options = {});
  ~MariadbServer();  // kills it and removes its directory
  MariadbServer(const MariadbServer&) = delete;
  MariadbServer& operator=(const MariadbServer&) = delete;

  void start();  // and waits until it answers
  void stop();   // in order
  void kill();   // SIGKILL, as a power cut
  bool running();

  // Runs statements as root through the command-line client; the rows, columns separated by tabs. Throws
  // Error with the client's message when one fails.
  std::string sql(const std::string& statements) const;
  // The same in the background: a session that another test step waits for, kills, or leaves to die with the
  // server.
  std::unique_ptr<Child> sql_async(const std::string& statements) const;

  const fs::path& dir() const { return dir_.path(); }
  fs::path data_dir() const { return dir() / "data"; }
  fs::path socket() const { return dir() / "s.sock"; }
  fs::path defaults_file() const { return dir() / "my.cnf"; }
  std::uint16_t port() const { return port_; }
  std::uint32_t server_id() const { return options_.server_id; }
  pid_t pid() const;

  // As the YAML of an agent beside it would say: root by the socket, control by process.
  MysqlSettings settings() const { return settings_of(dir()); }
  // The same for the server of another process's object.
  static MysqlSettings settings_of(const fs::path& dir);

 private:
  MariadbOptions options_;
  TempDir dir_;
  std::uint16_t port_ = 0;
  std::unique_ptr<Child> child_;
};

// A TCP port that nobody listens on at this moment.
std::uint16_t free_port();

}  // namespace guestagent::test

// What the three kinds of server control share, and the kinds themselves; for server_control.cc, and install.cc which
// asks who serves.
#pragma once

#include "strategies/mysql/host/detached.h"
#include "strategies/mysql/host/server_control.h"

namespace guestagent::mysql {

// Waiting and the meaning of "runs"; a kind says how to begin and how to ask for the end.
class CommonControl : public ServerControl {
 public:
  CommonControl(const MysqlSettings& settings, Clock& clock) : settings_(settings), clock_(clock) {}

  void start(Millis timeout, std::stop_token stop) override;
  void stop(Millis timeout) override;
  bool running() override;

 protected:
  virtual void launch(Millis timeout, std::stop_token stop) = 0;
  virtual void ask_stop(Millis timeout) = 0;
  // Why a started server can no longer be waited for; empty while it can.
  virtual std::string why_ended() = 0;
  virtual std::string log_hint() const = 0;

  const MysqlSettings& settings() const { return settings_; }
  Clock& clock() { return clock_; }

 private:
  // What the server wrote to its own error log since the start began, as far as it says why it ended.
  std::string own_words() const;

  fs::path error_log_;
  std::uint64_t error_log_from_ = 0;
  const MysqlSettings settings_;
  Clock& clock_;
};

std::unique_ptr<ServerControl> make_systemd_control(const MysqlSettings& settings, Clock& clock);
std::unique_ptr<ServerControl> make_commands_control(const MysqlSettings& settings, const fs::path& dir, Clock& clock);
std::unique_ptr<ServerControl> make_process_control(const MysqlSettings& settings, const fs::path& dir, Clock& clock);

// The file in `dir` for what a started program prints; one that has grown large is set aside once.
fs::path fresh_log(const fs::path& dir);

// Who listens on the socket: the kernel noted it when the server began to.
std::optional<ProcessId> socket_owner(const fs::path& socket);

// Parts with `with` between them.
std::string joined(const std::vector<std::string>& parts, std::string_view with);

}  // namespace guestagent::mysql

#include "base/child.h"
#include "base/error.h"
#include "strategies/mysql/host/control_kinds.h"

namespace guestagent::mysql {
namespace {

class CommandsControl : public CommonControl {
 public:
  CommandsControl(const MysqlSettings& settings, const fs::path& dir, Clock& clock)
      : CommonControl(settings, clock), dir_(dir) {}

 protected:
  // The command may be the server itself or may leave it behind: it gets a session of its own either way, and its
  // output goes to a file, since a server that inherits a pipe would be cut off by the agent's end.
  void launch(Millis, std::stop_token) override {
    log_ = fresh_log(dir_);
    command_ = start_detached({settings().server.start, server_environment(), std::nullopt, log_, {}});
    gone_since_.reset();
  }

  void ask_stop(Millis timeout) override {
    ChildSpec stopper;
    stopper.argv = settings().server.stop;
    stopper.env = server_environment();
    with_context("stopping the database server by " + stopper.argv.at(0), [&] { run_and_read(stopper, timeout); });
  }

  // A start command that ended may have left a server that has not locked its files yet: it gets a while.
  std::string why_ended() override {
    if (!command_ || alive(*command_) || data_holder(settings().data_dir)) {
      gone_since_.reset();
      return "";
    }
    if (!gone_since_) gone_since_ = clock().steady();
    if (clock().steady() - *gone_since_ < Seconds{10}) return "";
    return settings().server.start.at(0) + " ended and no server runs: " + joined(last_lines_of(log_, 5), " | ");
  }
  std::string log_hint() const override { return "see " + log_.string() + " and the server's error log"; }

 private:
  const fs::path dir_;
  fs::path log_;
  std::optional<ProcessId> command_;
  std::optional<SteadyTime> gone_since_;
};

}  // namespace

std::unique_ptr<ServerControl> make_commands_control(const MysqlSettings& settings, const fs::path& dir, Clock& clock) {
  return std::make_unique<CommandsControl>(settings, dir, clock);
}

}  // namespace guestagent::mysql

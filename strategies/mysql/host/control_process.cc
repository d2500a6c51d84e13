#include "base/child.h"
#include "base/error.h"
#include "base/log.h"
#include "strategies/mysql/host/control_kinds.h"

namespace guestagent::mysql {
namespace {

class ProcessControl : public CommonControl {
 public:
  ProcessControl(const MysqlSettings& settings, const fs::path& dir, Clock& clock)
      : CommonControl(settings, clock), dir_(dir) {}

  bool running() override { return read_process_record(record()).has_value() || CommonControl::running(); }

 protected:
  void launch(Millis, std::stop_token) override {
    log_ = fresh_log(dir_);
    started_ =
        start_detached({server_argv(settings(), {}), server_environment(), server_user(settings()), log_, record()});
    log_info("started the database server", {{"pid", std::to_string(started_->pid)}});
  }

  void ask_stop(Millis) override {
    std::optional<ProcessId> server = read_process_record(record());
    if (!server) {
      const auto holder = data_holder(settings().data_dir);
      if (holder) server = process_now(*holder);
    }
    if (!server) server = socket_owner(settings().socket);
    if (!server) {
      if (!CommonControl::running()) return;
      throw Error(Code::failed_precondition,
                  "stopping the database server: " + settings().data_dir.string() +
                      ": the process that serves it cannot be seen from here",
                  "stop it by hand, or set mysql.server.control to how it is stopped");
    }
    ask_to_end(*server);
  }

  std::string why_ended() override {
    if (!started_ || alive(*started_)) return "";
    const std::vector<std::string> lines = last_lines_of(log_, 5, {"ERROR", "error", "unknown"});
    return settings().server.command.at(0) + " ended" + (lines.empty() ? "" : ": " + joined(lines, " | "));
  }
  std::string log_hint() const override {
    return "see " + (dir_ / "server.log").string() + " or the server's own error log";
  }

 private:
  fs::path record() const { return dir_ / "server.pid"; }

  const fs::path dir_;
  fs::path log_;
  std::optional<ProcessId> started_;
};

}  // namespace

std::unique_ptr<ServerControl> make_process_control(const MysqlSettings& settings, const fs::path& dir, Clock& clock) {
  return std::make_unique<ProcessControl>(settings, dir, clock);
}

}  // namespace guestagent::mysql

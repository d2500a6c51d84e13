#include "base/child.h"
#include "base/error.h"
#include "strategies/mysql/host/control_kinds.h"

namespace guestagent::mysql {
namespace {

ChildSpec program(std::vector<std::string> argv) {
  ChildSpec spec;
  spec.argv = std::move(argv);
  return spec;
}

class SystemdControl : public CommonControl {
 public:
  using CommonControl::CommonControl;

  bool running() override {
    const std::string state = unit_state();
    return state == "active" || state == "activating" || state == "deactivating" || state == "reloading" ||
           CommonControl::running();
  }

 protected:
  void launch(Millis timeout, std::stop_token stop) override {
    // Somebody's attempts while the agent kept the server down may have used up the unit's start limit. Where there is
    // nothing to reset this fails, which says nothing about the start.
    Child reset(program({"systemctl", "reset-failed", settings().server.unit}));
    reset.wait(stop);
    try {
      run_and_read(program({"systemctl", "--no-ask-password", "start", settings().server.unit}), timeout, 1 << 20,
                   stop);
    } catch (const Error& e) {
      if (e.code() == Code::cancelled) throw;
      throw Error(e.code() == Code::internal ? Code::unavailable : e.code(),
                  "starting " + settings().server.unit + ": " + e.what(), log_hint());
    }
  }

  void ask_stop(Millis timeout) override {
    with_context("stopping " + settings().server.unit, [&] {
      run_and_read(program({"systemctl", "--no-ask-password", "stop", settings().server.unit}), timeout);
    });
  }

  std::string why_ended() override {
    const std::string state = unit_state();
    return state == "failed" || state == "inactive" ? settings().server.unit + " is " + state : "";
  }
  std::string log_hint() const override { return "journalctl -u " + settings().server.unit; }

 private:
  std::string unit_state() {
    std::string text = run_and_read(
        program({"systemctl", "show", "--property=ActiveState", "--value", settings().server.unit}), Millis{30000});
    text.erase(std::remove(text.begin(), text.end(), '\n'), text.end());
    return text;
  }
};

}  // namespace

std::unique_ptr<ServerControl> make_systemd_control(const MysqlSettings& settings, Clock& clock) {
  return std::make_unique<SystemdControl>(settings, clock);
}

}  // namespace guestagent::mysql

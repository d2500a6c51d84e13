#include <systemd/sd-daemon.h>

#include <condition_variable>
#include <csignal>
#include <mutex>

#include "agent/app.h"
#include "agent/commands.h"
#include "agent/metrics.h"
#include "agent/server.h"
#include "agent/signals.h"
#include "agent/watchdog.h"
#include "base/log.h"

namespace guestagent {
namespace {

// A job of another process that died, and what could not be removed because a store did not answer, are
// looked for this often.
constexpr Seconds kTendEvery{60};

class Daemon {
 public:
  explicit Daemon(const fs::path& config)
      : config_(config), app_(load(config), true), server_(app_.settings.agent, app_.dispatcher, app_.jobs, [this] {
          return render_metrics(app_.jobs, app_.dispatcher, app_.operations.get_replication_status());
        }) {}

  int run() {
    app_.jobs.recovery_is_due();
    std::jthread serving([this](std::stop_token stop) { serve(stop); });
    std::jthread tending([this](std::stop_token stop) { keep_tending(stop); });
    const SignalWatch watch([this](int signal) { signal == SIGHUP ? reload() : end(0); });
    log_info("agent is ready", {{"version", GUESTAGENT_VERSION}, {"socket", app_.settings.agent.socket.string()}});
    ::sd_notify(0, "READY=1");
    {
      const Watchdog watchdog(app_.settings.agent.socket);
      wait_for_the_end();
    }
    ::sd_notify(0, "STOPPING=1");
    log_info("agent is stopping");
    app_.jobs.shut_down();
    tending.request_stop();
    serving.request_stop();
    return status_;
  }

 private:
  static Settings load(const fs::path& config) {
    Settings settings = load_settings(config, store_sections());
    log_setup(settings.agent.log_level, settings.agent.log_format);
    return settings;
  }

  void serve(std::stop_token stop) {
    try {
      server_.run(stop);
    } catch (const std::exception& e) {
      const Error error = to_error(e);
      log_error("the server failed", {{"error", error.what()}});
      end(code_row(error.code()).exit_status);
    }
  }

  void keep_tending(std::stop_token stop) {
    do {
      try {
        app_.jobs.recover();
      } catch (const std::exception& e) {
        log_error("what a dead process left cannot be recovered now", {{"error", e.what()}});
      }
      try {
        app_.parts.upkeep->tend();
      } catch (const std::exception& e) {
        log_error("leases cannot be looked after now", {{"error", e.what()}});
      }
      try {
        // The lock only where there is something to do: who comes meanwhile is told that the host is busy.
        DatastoreUpkeep& upkeep = *app_.parts.upkeep;
        if (upkeep.tidy_due()) app_.jobs.while_idle([&] { upkeep.tidy(); });
      } catch (const std::exception& e) {
        log_error("what is too old to keep cannot be removed now", {{"error", e.what()}});
      }
    } while (system_clock().sleep(kTendEvery, stop));
  }

  void reload() {
    ::sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld",
                 static_cast<long long>(std::chrono::duration_cast<std::chrono::microseconds>(
                                            std::chrono::steady_clock::now().time_since_epoch())
                                            .count()));
    try {
      const Settings settings = load_settings(config_, store_sections());
      app_.set_throttle(settings.snapshot.throttle);
      log_set_level(settings.agent.log_level);
      server_.reload_tls();
      log_info("throttles, log level and TLS files were read again; other settings wait for a restart");
    } catch (const std::exception& e) {
      log_error("the configuration was not read again", {{"error", e.what()}});
    }
    ::sd_notify(0, "READY=1");
  }

  void end(int status) {
    const std::lock_guard lock(mutex_);
    status_ = status;
    ended_ = true;
    wake_.notify_all();
  }

  void wait_for_the_end() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return ended_; });
  }

  const fs::path config_;
  App app_;
  Server server_;
  std::mutex mutex_;  // guards the two below
  std::condition_variable wake_;
  bool ended_ = false;
  int status_ = 0;
};

}  // namespace

int run_daemon(const CommandLine& line) {
  hold_signals();
  return Daemon(line.config).run();
}

}  // namespace guestagent

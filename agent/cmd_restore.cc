#include <unistd.h>

#include <cstdio>
#include <optional>

#include "agent/app.h"
#include "agent/commands.h"
#include "agent/foreground_job.h"
#include "agent/progress_view.h"
#include "agent/signals.h"
#include "base/held_dir.h"
#include "base/log.h"

namespace guestagent {
namespace {

// A new or empty directory, or one with a part to go on with, that is as it was unless kept. It is held by descriptor:
// what somebody puts in its place is not touched.
class Target {
 public:
  Target(const fs::path& dir, DatastoreUpkeep& upkeep)
      : dir_(fs::absolute(dir).lexically_normal()), existed_(is_there(dir_)), upkeep_(upkeep) {
    require_safe_place(dir_);
    if (existed_ && !fs::is_directory(fs::symlink_status(dir_))) throw refused();
    if (!existed_) make_own_dir(dir_, 0700);
    held_.emplace(dir_);
    if (!held_->empty() && !upkeep_.has_part(dir_)) throw refused();
  }
  ~Target() {
    if (kept_) return;
    try {
      if (upkeep_.has_part(dir_)) return;
      held_->clear();
      if (!existed_ && held_->stands()) remove_dir_if_empty(dir_);
    } catch (const std::exception& e) {
      log_warning("what was restored so far stays", {{"path", dir_.string()}, {"error", e.what()}});
    }
  }
  void keep() { kept_ = true; }
  const fs::path& dir() const { return dir_; }

 private:
  static bool is_there(const fs::path& path) { return fs::symlink_status(path).type() != fs::file_type::not_found; }
  Error refused() const {
    return Error(Code::failed_precondition, "restore into " + dir_.string() + ": it is not an empty directory",
                 "name a directory that is empty or does not exist");
  }

  const fs::path dir_;
  const bool existed_;
  DatastoreUpkeep& upkeep_;
  std::optional<HeldDir> held_;
  bool kept_ = false;
};

}  // namespace

int run_restore(const CommandLine& line) {
  hold_signals();
  Settings settings = load_settings(line.config, store_sections());
  settings.snapshot.encryption.allow_plain |= line.allow_plain;
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  log_setup(terminal && !line.verbose ? LogLevel::warning : settings.agent.log_level, settings.agent.log_format);
  App app(std::move(settings), false);
  ProgressView view(STDERR_FILENO, terminal);
  std::stop_source stop;
  const SignalWatch watch([&](int) { stop.request_stop(); });
  ForegroundJob job(stop.get_token(), [&](const JobRecord& record) { view.show(record); });
  Target target(line.to, *app.parts.upkeep);
  app.operations.restore(line.href, target.dir(), job);
  target.keep();
  view.end();

  std::printf("The data is in %s, prepared. %s", target.dir().c_str(), how_to_look(app.settings, target.dir()).c_str());
  return 0;
}

}  // namespace guestagent

#include "agent/foreground_job.h"

#include "base/log.h"

namespace guestagent {
namespace {
constexpr Millis kTell{200};
}

ForegroundJob::ForegroundJob(std::stop_token stop, std::function<void(const JobRecord&)> observer)
    : stop_(std::move(stop)), observer_(std::move(observer)), phase_began_(std::chrono::steady_clock::now()) {}

void ForegroundJob::phase(std::string_view name) {
  LogScope::set_phase(name);
  const std::lock_guard lock(mutex_);
  record_.phase = name;
  record_.progress = {};
  phase_began_ = std::chrono::steady_clock::now();
  tell();
}

void ForegroundJob::progress(std::uint64_t done, std::optional<std::uint64_t> total) {
  const std::lock_guard lock(mutex_);
  const SteadyTime now = std::chrono::steady_clock::now();
  if (now - told_ < kTell) return;
  JobProgress& progress = record_.progress;
  progress.done_bytes = done;
  progress.total_bytes = total;
  const std::chrono::duration<double> elapsed = now - phase_began_;
  progress.rate = elapsed.count() > 0.1 ? double(done) / elapsed.count() : 0;
  progress.eta_s.reset();
  if (total && *total >= done && progress.rate > 0)
    progress.eta_s = std::uint64_t(double(*total - done) / progress.rate + 0.5);
  tell();
}

void ForegroundJob::warn(std::string_view message) {
  log_warning(message);
}

Journal& ForegroundJob::journal() {
  if (!journal_) {
    dir_.emplace(fs::temp_directory_path(), "guestagent-journal-");
    journal_.emplace(dir_->path() / "journal");
  }
  return *journal_;
}

void ForegroundJob::tell() {
  told_ = std::chrono::steady_clock::now();
  if (observer_) observer_(record_);
}

}  // namespace guestagent

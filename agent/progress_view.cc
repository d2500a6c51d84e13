#include "agent/progress_view.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cstdio>

namespace guestagent {
namespace {

constexpr Seconds kPlainEvery{2};

std::size_t columns(int fd) {
  winsize size{};
  return ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 10 ? size.ws_col : 80;
}

}  // namespace

std::string human_bytes(std::uint64_t bytes) {
  constexpr std::array<const char*, 6> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = double(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string human_seconds(std::uint64_t seconds) {
  if (seconds < 60) return std::to_string(seconds) + " s";
  if (seconds < 3600) return std::to_string(seconds / 60) + " min " + std::to_string(seconds % 60) + " s";
  return std::to_string(seconds / 3600) + " h " + std::to_string(seconds / 60 % 60) + " min";
}

std::string progress_text(const JobRecord& record) {
  const JobProgress& progress = record.progress;
  std::string text = record.phase;
  if (progress.done_bytes == 0 && !progress.total_bytes) return text;
  text += ": " + human_bytes(progress.done_bytes);
  if (progress.total_bytes) {
    text += " of " + human_bytes(*progress.total_bytes);
    if (*progress.total_bytes > 0 && progress.done_bytes <= *progress.total_bytes) {
      text +=
          " (" +
          std::to_string(static_cast<unsigned>(100.0 * double(progress.done_bytes) / double(*progress.total_bytes))) +
          " %)";
    }
  }
  if (progress.rate > 0) text += ", " + human_bytes(static_cast<std::uint64_t>(progress.rate)) + "/s";
  if (progress.eta_s && !record.ended()) text += ", " + human_seconds(*progress.eta_s) + " left";
  return text;
}

void ProgressView::show(const JobRecord& record) {
  const std::lock_guard lock(mutex_);
  const std::string text = progress_text(record);
  if (record.phase.empty() || text == last_) return;
  const bool new_phase = record.phase != phase_;
  phase_ = record.phase;
  const SteadyTime now = std::chrono::steady_clock::now();
  if (terminal_) {
    std::string shown = text.substr(0, columns(fd_) - 1);
    print((new_phase && line_open_ ? "\n\r" : "\r") + shown + "\x1b[K");
    line_open_ = true;
  } else if (new_phase || now - shown_ >= kPlainEvery) {
    print("progress: " + text + "\n");
    shown_ = now;
  } else {
    return;
  }
  last_ = text;
}

void ProgressView::end() {
  const std::lock_guard lock(mutex_);
  if (line_open_) print("\n");
  line_open_ = false;
}

void ProgressView::print(const std::string& text) {
  // Progress that cannot be shown is no reason to fail.
  [[maybe_unused]] const ssize_t n = ::write(fd_, text.data(), text.size());
}

}  // namespace guestagent

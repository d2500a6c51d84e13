// A job's progress for a person: one line that updates on a terminal; else a line for each phase and then at
// most every 2 s.
#pragma once

#include <mutex>
#include <string>

#include "agent/job_records.h"

namespace guestagent {

// "1.2 GiB", "512 B"
std::string human_bytes(std::uint64_t bytes);
// "5 s", "3 min 20 s", "2 h 5 min"
std::string human_seconds(std::uint64_t seconds);
// "copy: 1.2 GiB of 3.4 GiB (35 %), 412.0 MiB/s, 5 s left"; only the phase where it counts nothing.
std::string progress_text(const JobRecord& record);

// Thread-safe.
class ProgressView {
 public:
  // Writes to `fd`; `terminal` says whether that is one.
  ProgressView(int fd, bool terminal) : fd_(fd), terminal_(terminal) {}
  ~ProgressView() { end(); }
  void show(const JobRecord& record);
  // Leaves the updating line as it is; what is printed next begins a line of its own.
  void end();

 private:
  void print(const std::string& text);
  const int fd_;
  const bool terminal_;
  std::mutex mutex_;
  std::string phase_, last_;
  bool line_open_ = false;
  SteadyTime shown_;
};

}  // namespace guestagent

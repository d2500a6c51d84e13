// A limit in bytes per second that can be changed while it is used. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <stop_token>

#include "base/clock.h"

namespace guestagent {

class RateLimit {
 public:
  // `clock` outlives it.
  explicit RateLimit(std::uint64_t bytes_per_second = 0, Clock& clock = system_clock());
  // 0: no limit. Takes effect at once, also for waiters.
  void set(std::uint64_t bytes_per_second);
  // Waits until `bytes` may pass, after those that asked before. Returns early when `stop` is requested.
  void take(std::uint64_t bytes, std::stop_token stop);

 private:
  void settle();

  Clock& clock_;
  std::atomic<std::uint64_t> rate_;
  std::mutex mutex_;
  SteadyTime settled_at_;
  double asked_ = 0;  // bytes, of all callers since the start
  double passed_ = 0;
};

struct Throttle {
  RateLimit upload, download, read;
};

}  // namespace guestagent

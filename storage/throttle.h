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
  explicit RateLimit(std::uint64_t bytes_per_second = 0, Clock& clock = system_clock());
  // 0: no limit. Takes effect at once, also for waiters.
  void set(std::uint64_t bytes_per_second);
  // Waits until `bytes` may pass. Returns early when `stop` is requested.
  void take(std::uint64_t bytes, std::stop_token stop);

 private:
  Clock& clock_;
  std::atomic<std::uint64_t> rate_;
  std::mutex mutex_;
  SteadyTime next_;
};

struct Throttle {
  RateLimit upload, download, read;
};

}  // namespace guestagent

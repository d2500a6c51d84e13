// A clock that only sleeping moves: a day of retries runs in a millisecond.
#pragma once

#include <mutex>
#include <vector>

#include "base/clock.h"

namespace guestagent {

class FakeClock : public Clock {
 public:
  WallTime now() const override { return WallTime(std::chrono::hours(490000)) + passed(); }
  SteadyTime steady() const override { return SteadyTime(std::chrono::hours(1)) + passed(); }
  bool sleep(Millis duration, std::stop_token stop) override {
    const std::lock_guard lock(mutex_);
    if (stop.stop_requested()) return false;
    passed_ += duration;
    slept_.push_back(duration);
    return true;
  }
  void advance(Millis by) {
    const std::lock_guard lock(mutex_);
    passed_ += by;
  }
  std::vector<Millis> slept() const {
    const std::lock_guard lock(mutex_);
    return slept_;
  }

 private:
  Millis passed() const {
    const std::lock_guard lock(mutex_);
    return passed_;
  }
  mutable std::mutex mutex_;
  Millis passed_{0};
  std::vector<Millis> slept_;
};

}  // namespace guestagent

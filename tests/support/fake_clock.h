// A clock that only sleeping moves: a day of retries runs in a millisecond.
#pragma once

#include <functional>
#include <mutex>
#include <vector>

#include "base/clock.h"

namespace guestagent {

class FakeClock : public Clock {
 public:
  WallTime now() const override { return WallTime(std::chrono::hours(490000)) + passed(); }
  SteadyTime steady() const override { return SteadyTime(std::chrono::hours(1)) + passed(); }
  bool sleep(Millis duration, std::stop_token stop) override {
    if (stop.stop_requested()) return false;
    std::function<void()> hook;
    {
      const std::lock_guard lock(mutex_);
      passed_ += duration;
      slept_.push_back(duration);
      hook = on_sleep_;
    }
    if (hook) hook();
    return true;
  }
  // Called in each sleep.
  void on_sleep(std::function<void()> hook) {
    const std::lock_guard lock(mutex_);
    on_sleep_ = std::move(hook);
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
  std::function<void()> on_sleep_;
};

}  // namespace guestagent

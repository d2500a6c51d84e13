#include "storage/throttle.h"

#include <algorithm>
#include <cmath>

namespace guestagent {
namespace {

// Waiters look this often whether the limit was changed.
constexpr Millis kLongestSleep{100};

}  // namespace

RateLimit::RateLimit(std::uint64_t bytes_per_second, Clock& clock)
    : clock_(clock), rate_(bytes_per_second), settled_at_(clock.steady()) {}

void RateLimit::set(std::uint64_t bytes_per_second) {
  const std::lock_guard lock(mutex_);
  settle();
  rate_ = bytes_per_second;
}

void RateLimit::settle() {
  const SteadyTime now = clock_.steady();
  const double seconds = std::chrono::duration<double>(now - settled_at_).count();
  settled_at_ = now;
  // What nobody asked for is not saved up: an idle minute buys no burst.
  passed_ = rate_ == 0 ? asked_ : std::min(asked_, passed_ + seconds * static_cast<double>(rate_.load()));
}

void RateLimit::take(std::uint64_t bytes, std::stop_token stop) {
  if (rate_ == 0) return;
  std::unique_lock lock(mutex_);
  settle();
  asked_ += static_cast<double>(bytes);
  const double mine = asked_;
  while (true) {
    settle();
    if (passed_ >= mine) return;
    if (stop.stop_requested()) {
      passed_ = std::min(asked_, passed_ + static_cast<double>(bytes));
      return;
    }
    const double seconds = (mine - passed_) / static_cast<double>(rate_.load());
    const Millis pause(static_cast<Millis::rep>(std::ceil(std::min(seconds * 1000, 1e9))));
    lock.unlock();
    clock_.sleep(std::min(pause, kLongestSleep), stop);
    lock.lock();
  }
}

}  // namespace guestagent

// Time, so that a test can run a day of retries in a millisecond.
#pragma once

#include <chrono>
#include <stop_token>
#include <string>

namespace guestagent {

using Millis = std::chrono::milliseconds;
using Seconds = std::chrono::seconds;
using WallTime = std::chrono::system_clock::time_point;
using SteadyTime = std::chrono::steady_clock::time_point;

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallTime now() const = 0;
  virtual SteadyTime steady() const = 0;
  // Returns early, with false, when `stop` is requested.
  virtual bool sleep(Millis duration, std::stop_token stop) = 0;
};

// The machine's clock; lives for the whole process.
Clock& system_clock();

// "2026-01-31T23:59:59Z", and back; parse throws Error(invalid_argument), also for a year before 1678 or after 2261.
std::string format_utc(WallTime time);
WallTime parse_utc(std::string_view text);

}  // namespace guestagent

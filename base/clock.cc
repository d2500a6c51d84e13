#include "base/clock.h"

#include <condition_variable>
#include <ctime>
#include <mutex>

#include "base/error.h"
#include "base/text.h"

namespace guestagent {
namespace {

class SystemClock : public Clock {
 public:
  WallTime now() const override { return std::chrono::system_clock::now(); }
  SteadyTime steady() const override { return std::chrono::steady_clock::now(); }
  bool sleep(Millis duration, std::stop_token stop) override {
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    const SteadyTime until = steady() + duration;
    while (!stop.stop_requested()) {
      if (steady() >= until) return true;
      wake.wait_until(lock, stop, until, [] { return false; });
    }
    return false;
  }
};

}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

std::string format_utc(WallTime time) {
  const std::time_t seconds = std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[64];
  return std::string(text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts));
}

WallTime parse_utc(std::string_view text) {
  constexpr std::string_view kShape = "dddd-dd-ddTdd:dd:ddZ";
  // Whole years that a WallTime, which counts nanoseconds in 64 bits, can hold.
  constexpr std::chrono::year kFirst(1678), kLast(2261);
  bool good = text.size() == kShape.size();
  for (std::size_t i = 0; good && i < kShape.size(); ++i) {
    good = kShape[i] == 'd' ? text[i] >= '0' && text[i] <= '9' : text[i] == kShape[i];
  }
  const auto number = [&](std::size_t at, std::size_t digits) {
    int value = 0;
    for (std::size_t i = at; i < at + digits; ++i) value = value * 10 + (text[i] - '0');
    return value;
  };
  if (good) {
    const std::chrono::year_month_day date{std::chrono::year(number(0, 4)),
                                           std::chrono::month(static_cast<unsigned>(number(5, 2))),
                                           std::chrono::day(static_cast<unsigned>(number(8, 2)))};
    const int hour = number(11, 2), minute = number(14, 2), second = number(17, 2);
    if (date.ok() && date.year() >= kFirst && date.year() <= kLast && hour < 24 && minute < 60 && second < 60) {
      return std::chrono::sys_days(date) + std::chrono::hours(hour) + std::chrono::minutes(minute) +
             std::chrono::seconds(second);
    }
  }
  throw Error(Code::invalid_argument,
              "reading the time \"" + printable(text) + "\": it is no UTC time like 2026-01-31T23:59:59Z");
}

}  // namespace guestagent

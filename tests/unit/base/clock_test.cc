#include "base/clock.h"

#include <gmock/gmock.h>

#include <thread>

#include "base/error.h"

namespace guestagent {
namespace {

TEST(SystemClock, SleepEndsWithFalseOnStop) {
  std::stop_source source;
  source.request_stop();
  EXPECT_FALSE(system_clock().sleep(std::chrono::hours(24), source.get_token()));
  EXPECT_TRUE(system_clock().sleep(Millis(1), {}));
  EXPECT_TRUE(system_clock().sleep(Millis(-5), {}));
}

TEST(SystemClock, SleepIsWokenByStop) {
  std::stop_source source;
  std::jthread stopper([&] { source.request_stop(); });
  EXPECT_FALSE(system_clock().sleep(std::chrono::hours(24), source.get_token()));
}

TEST(Utc, FormatsAndParsesBack) {
  for (const std::string_view text : {"1970-01-01T00:00:00Z", "2026-01-31T23:59:59Z", "2024-02-29T12:00:00Z",
                                      "2000-02-29T00:00:00Z", "2261-12-31T23:59:59Z"}) {
    EXPECT_EQ(format_utc(parse_utc(text)), text);
  }
  EXPECT_EQ(format_utc(WallTime(std::chrono::milliseconds(1999))), "1970-01-01T00:00:01Z");
}

TEST(Utc, RefusesWhatIsNoTime) {
  for (const std::string_view text : {"",
                                      "now",
                                      "2026-01-31",
                                      "2026-01-31T23:59:59",
                                      "2026-01-31 23:59:59Z",
                                      "2026-13-01T00:00:00Z",
                                      "2026-02-30T00:00:00Z",
                                      "2025-02-29T00:00:00Z",
                                      "2026-01-01T24:00:00Z",
                                      "2026-01-01T00:60:00Z",
                                      "2026-01-01T00:00:60Z",
                                      "2026-01-01T00:00:00Zx",
                                      "2026-1-01T00:00:00Z0",
                                      "-026-01-01T00:00:00Z",
                                      "2026-01-01T00:00:0 Z",
                                      "1677-12-31T00:00:00Z",
                                      "2262-01-01T00:00:00Z",
                                      "9999-01-01T00:00:00Z",
                                      "2026-00-01T00:00:00Z",
                                      "2026-01-00T00:00:00Z"}) {
    try {
      parse_utc(text);
      ADD_FAILURE() << text << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::invalid_argument);
    }
  }
}

}  // namespace
}  // namespace guestagent

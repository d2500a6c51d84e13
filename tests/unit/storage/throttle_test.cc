#include "storage/throttle.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/support/fake_clock.h"

namespace guestagent {
namespace {

double seconds_since(const FakeClock& clock, SteadyTime start) {
  return std::chrono::duration<double>(clock.steady() - start).count();
}

TEST(RateLimit, NoLimitTakesNoTime) {
  FakeClock clock;
  const SteadyTime start = clock.steady();
  RateLimit limit(0, clock);
  limit.take(UINT64_MAX / 2, {});
  EXPECT_EQ(clock.steady(), start);
}

TEST(RateLimit, BytesTakeTheirTimeWhateverTheirPortions) {
  for (const std::uint64_t portion : {std::uint64_t{1000}, std::uint64_t{65536}, std::uint64_t{10000000}}) {
    FakeClock clock;
    const SteadyTime start = clock.steady();
    RateLimit limit(1000000, clock);
    for (std::uint64_t taken = 0; taken < 10000000; taken += portion) limit.take(portion, {});
    EXPECT_GE(seconds_since(clock, start), 9.99) << portion;
    EXPECT_LE(seconds_since(clock, start), 10.5) << portion;
  }
}

TEST(RateLimit, AnIdleHourBuysNoBurst) {
  FakeClock clock;
  RateLimit limit(1000, clock);
  clock.advance(Seconds(3600));
  const SteadyTime start = clock.steady();
  limit.take(10000, {});
  EXPECT_GE(seconds_since(clock, start), 9.99);
}

TEST(RateLimit, ANewLimitHoldsForWhoWaitsAlready) {
  RateLimit limit(1);
  std::atomic<bool> passed = false;
  std::jthread waiting([&] {
    limit.take(1000000, {});
    passed = true;
  });
  std::this_thread::sleep_for(Millis(20));
  EXPECT_FALSE(passed);
  limit.set(0);
  waiting.join();
  EXPECT_TRUE(passed);
}

TEST(RateLimit, StoppingEndsTheWaitAndCostsOthersNothing) {
  FakeClock clock;
  RateLimit limit(1000, clock);
  std::stop_source stop;
  stop.request_stop();
  limit.take(1000000, stop.get_token());
  const SteadyTime start = clock.steady();
  limit.take(1000, {});
  EXPECT_LE(seconds_since(clock, start), 1.2);
}

}  // namespace
}  // namespace guestagent

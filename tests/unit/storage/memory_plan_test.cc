#include "storage/memory_plan.h"

#include <gtest/gtest.h>

#include "config/units.h"
#include "stream/buffer.h"

namespace guestagent {
namespace {

SnapshotSettings with(std::uint64_t limit_mib, unsigned workers, std::uint64_t segment_mib = 32) {
  SnapshotSettings settings;
  settings.memory_limit = limit_mib * kMiB;
  settings.workers = workers;
  settings.segment_bytes = segment_mib * kMiB;
  return settings;
}

TEST(MemoryPlan, TheDefaultsFitTwoCores) {
  const MemoryPlan plan = plan_writing(with(192, 2), Codec::zstd);
  EXPECT_EQ(plan.workers, 2U);
  EXPECT_EQ(plan.segment_bytes, 32 * kMiB);
  EXPECT_GE(plan.for_segments, 4 * 32 * kMiB);
  EXPECT_LE(plan.for_segments, 160 * kMiB);
}

TEST(MemoryPlan, EveryPlanKeepsItsLimitAndHasRoomForItsThreads) {
  for (const std::uint64_t limit : {64, 96, 128, 192, 256, 1024, 8192}) {
    for (const unsigned workers : {1U, 2U, 3U, 4U, 8U, 16U, 64U, 256U}) {
      for (const std::uint64_t segment : {1, 4, 8, 32, 64}) {
        for (const Codec codec : {Codec::none, Codec::zstd, Codec::lz4, Codec::gzip}) {
          const MemoryPlan plan = plan_writing(with(limit, workers, segment), codec);
          EXPECT_LE(plan.for_segments, limit * kMiB - 28 * kMiB);
          EXPECT_GE(plan.for_segments, 3 * Buffer::footprint(plan.segment_bytes));
          EXPECT_GE(plan.for_segments, (plan.workers + 2) * Buffer::footprint(plan.segment_bytes))
              << limit << ' ' << workers;
          EXPECT_LE(plan.segment_bytes, segment * kMiB);
          EXPECT_GE(plan.segment_bytes, kMiB);
          EXPECT_LE(plan.workers, workers);
          EXPECT_GE(plan.workers, 1U);
        }
      }
    }
  }
}

TEST(MemoryPlan, MoreCoresMakeSmallerSegmentsThenWaitForMoreMemory) {
  EXPECT_LT(plan_writing(with(192, 8), Codec::zstd).segment_bytes, 32 * kMiB);
  EXPECT_EQ(plan_writing(with(192, 8), Codec::zstd).workers, 8U);
  EXPECT_LT(plan_writing(with(192, 64), Codec::zstd).workers, 64U);
  EXPECT_EQ(plan_writing(with(4096, 64), Codec::zstd).workers, 64U);
  EXPECT_EQ(plan_writing(with(4096, 64), Codec::zstd).segment_bytes, 32 * kMiB);
}

TEST(MemoryPlan, HighLevelsTakeTheirMemoryFromTheSegments) {
  SnapshotSettings settings = with(192, 4);
  const MemoryPlan fast = plan_writing(settings, Codec::zstd);
  settings.level = 9;
  EXPECT_LT(plan_writing(settings, Codec::zstd).for_segments, fast.for_segments);
}

TEST(MemoryPlan, ThereIsAlwaysMemoryForOneSegmentToRead) {
  const MemoryPlan plan = plan_reading(with(1, 2), Codec::zstd, 64 * kMiB);
  EXPECT_EQ(plan.workers, 1U);
  EXPECT_EQ(plan.for_segments, 64 * kMiB);
  EXPECT_EQ(plan_reading(with(192, 2), Codec::zstd, 32 * kMiB).workers, 2U);
  EXPECT_GE(plan_reading(with(192, 2), Codec::zstd, 32 * kMiB).for_segments, 4 * 32 * kMiB);
}

}  // namespace
}  // namespace guestagent

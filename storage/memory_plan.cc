#include "storage/memory_plan.h"

#include <algorithm>
#include <array>
#include <thread>

#include "config/units.h"
#include "stream/buffer.h"

namespace guestagent {
namespace {

// Program, libraries, heap, connections, thread stacks: 20 MiB measured, and some air.
constexpr std::uint64_t kProcess = 28 * kMiB;
constexpr std::uint64_t kSmallestWanted = 8 * kMiB;

std::uint64_t worker_bytes(Codec codec, int level) {
  // Chunks that are only partly filled, and what the codec allocates (ZSTD_estimateCStreamSize by level).
  constexpr std::array<std::uint64_t, 10> kZstd = {2, 2, 2, 4, 5, 6, 6, 9, 9, 17};
  constexpr std::uint64_t kChunks = 2;
  switch (codec) {
    case Codec::zstd:
      return (kChunks + kZstd[static_cast<std::size_t>(std::clamp(level, 0, 9))]) * kMiB;
    case Codec::lz4:
      return (kChunks + 9) * kMiB;
    case Codec::gzip:
    case Codec::none:
      break;
  }
  return (kChunks + 1) * kMiB;
}

std::uint64_t left_of(std::uint64_t limit, std::uint64_t taken) {
  return limit > taken ? limit - taken : 0;
}

unsigned wanted_workers(const SnapshotSettings& settings) {
  return std::max(settings.workers == 0 ? std::thread::hardware_concurrency() : settings.workers, 1U);
}

}  // namespace

MemoryPlan plan_writing(const SnapshotSettings& settings, Codec codec) {
  const std::uint64_t each = worker_bytes(codec, settings.level);
  const std::uint64_t wanted = std::max<std::uint64_t>(settings.segment_bytes, 1);
  const std::uint64_t smallest = std::min(wanted, kSmallestWanted);
  MemoryPlan plan;
  for (plan.workers = wanted_workers(settings);; --plan.workers) {
    const std::uint64_t room =
        left_of(settings.memory_limit, kProcess + plan.workers * each + std::min(kCarriedBytes, wanted));
    const std::uint64_t share = room / (plan.workers + 2) / kMiB * kMiB;
    plan.segment_bytes = std::min(wanted, share);
    plan.for_segments = room;
    if (plan.segment_bytes >= smallest || plan.workers == 1) break;
  }
  plan.segment_bytes = std::max(plan.segment_bytes, std::min(wanted, kMiB));
  const std::uint64_t segment = Buffer::footprint(plan.segment_bytes);
  // More than every thread can hold would only be a longer queue.
  const std::uint64_t useful = (plan.workers + settings.transfers + 2) * segment;
  plan.for_segments = std::clamp(plan.for_segments, 3 * segment, std::max(useful, 3 * segment));
  return plan;
}

MemoryPlan plan_reading(const SnapshotSettings& settings, Codec codec, std::uint64_t segment_bytes) {
  // A decoder takes less than the encoder that made its input.
  const std::uint64_t each = worker_bytes(codec, 0);
  MemoryPlan plan;
  plan.workers = wanted_workers(settings);
  plan.segment_bytes = std::max<std::uint64_t>(segment_bytes, 1);
  const std::uint64_t segment = Buffer::footprint(plan.segment_bytes);
  while (plan.workers > 1 &&
         left_of(settings.memory_limit, kProcess + plan.workers * each) < (plan.workers + 1) * segment) {
    --plan.workers;
  }
  const std::uint64_t useful = (plan.workers + settings.transfers + 2) * segment;
  plan.for_segments = std::clamp(left_of(settings.memory_limit, kProcess + plan.workers * each), segment, useful);
  return plan;
}

}  // namespace guestagent

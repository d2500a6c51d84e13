// How the memory of a data path is divided.
#pragma once

#include <cstdint>

#include "config/settings.h"
#include "stream/codec.h"

namespace guestagent {

// Most that is read of the next segment before there is memory for it, where one ends early (snapshot_writer.cc): a
// chunk of a backup tool's stream, 10 MiB and its head, in one chunk of ours more.
inline constexpr std::uint64_t kCarriedBytes = std::uint64_t{11} << 20;

struct MemoryPlan {
  unsigned workers = 1;
  std::uint64_t segment_bytes = 0;  // raw bytes of one segment
  std::uint64_t for_segments = 0;   // for the bytes of all segments in flight, in whole chunks
};

// For writing: settings.memory_limit without what the process, the codec of each worker and the beginning of a next
// segment (kCarriedBytes) take. Every worker has a
// segment and two more are being read and sent; for that, segments are smaller than settings.segment_bytes where need
// be (down to 8 MiB), and then workers are fewer than asked for. Whatever the limit, three segments of 1 MiB are there.
MemoryPlan plan_writing(const SnapshotSettings& settings, Codec codec);

// For reading segments of about `segment_bytes` raw bytes: there is always memory for one.
MemoryPlan plan_reading(const SnapshotSettings& settings, Codec codec, std::uint64_t segment_bytes);

}  // namespace guestagent

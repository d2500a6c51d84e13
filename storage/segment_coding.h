// One segment between the tool's bytes and the store's: compress -> (encrypt) -> hash, and back with everything
// verified.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "storage/snapshot_format.h"

namespace guestagent {

struct SegmentCoding {
  std::string snapshot_id;
  Codec codec = Codec::none;
  int level = 0;
  std::optional<SnapshotKeys> keys;  // nullopt: not encrypted
  const SnapshotKeys* keys_or_null() const { return keys ? &*keys : nullptr; }
};

struct SealedSegment {
  std::uint64_t number = 0;  // from 1
  SegmentEntry entry;
  Buffer stored;
};

// Thread-safe, both of them. `raw` and `stored` are freed on the way.
SealedSegment seal_segment(const SegmentCoding& coding, std::uint64_t number, Buffer raw);

// Throws Error(data_loss), saying what is wrong, unless `stored` has the size and the digest of `entry`. Thread-safe.
void check_stored(const SegmentEntry& entry, const Buffer& stored);

// The same for what is in it: exactly what `entry` and `number` say, or data_loss. Thread-safe.
// REQUIRES: check_stored() passed.
Buffer open_stored(const SegmentCoding& coding, std::uint64_t number, const SegmentEntry& entry, Buffer stored);

// Both.
Buffer open_segment(const SegmentCoding& coding, std::uint64_t number, const SegmentEntry& entry, Buffer stored);

}  // namespace guestagent

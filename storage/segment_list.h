// The list of a snapshot's stored segments: they end in any order and are listed in theirs.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "storage/object_store.h"
#include "storage/snapshot_format.h"

namespace guestagent {

// An index that gets no more segments: what is to be put, and what it lists.
struct ClosedIndex {
  unsigned number = 0;
  std::string name;
  std::string text;
  std::vector<ObjectInfo> segments;
};

// Not thread-safe. Memory: one index, and what ended before its turn.
class SegmentList {
 public:
  // Adds a segment that is on the store; answers the indexes that are full by it.
  std::vector<ClosedIndex> add(std::uint64_t number, SegmentEntry entry, const SnapshotKeys* keys);

  // The rest; nullopt when there is none. REQUIRES: every segment from 1 on was added.
  std::optional<ClosedIndex> close_last(const SnapshotKeys* keys);

  std::size_t indexes() const { return indexes_.size(); }

  // Puts indexes, totals and digest into `manifest`. Once, at the end.
  void describe(Manifest& manifest);

 private:
  void append(SegmentEntry entry);
  ClosedIndex close(const SnapshotKeys* keys);

  std::map<std::uint64_t, SegmentEntry> early_;
  std::uint64_t next_ = 1;
  std::uint64_t raw_bytes_ = 0, stored_bytes_ = 0;
  SegmentIndex open_;
  std::vector<IndexEntry> indexes_;
  SegmentListDigest digest_;
};

}  // namespace guestagent

#include "storage/segment_list.h"

#include <utility>

namespace guestagent {

std::vector<ClosedIndex> SegmentList::add(std::uint64_t number, SegmentEntry entry, const SnapshotKeys* keys) {
  early_.emplace(number, std::move(entry));
  std::vector<ClosedIndex> full;
  while (!early_.empty() && early_.begin()->first == next_) {
    append(std::move(early_.begin()->second));
    early_.erase(early_.begin());
    if (open_.segments.size() == kSegmentsPerIndex) full.push_back(close(keys));
  }
  return full;
}

std::optional<ClosedIndex> SegmentList::close_last(const SnapshotKeys* keys) {
  if (open_.segments.empty()) return std::nullopt;
  return close(keys);
}

void SegmentList::describe(Manifest& manifest) {
  manifest.indexes = indexes_;
  manifest.segments = next_ - 1;
  manifest.raw_bytes = raw_bytes_;
  manifest.stored_bytes = stored_bytes_;
  manifest.digest = digest_.finish();
}

void SegmentList::append(SegmentEntry entry) {
  ++next_;
  raw_bytes_ += entry.raw_bytes;
  stored_bytes_ += entry.stored_bytes;
  digest_.add(entry);
  open_.segments.push_back(std::move(entry));
}

ClosedIndex SegmentList::close(const SnapshotKeys* keys) {
  open_.number = static_cast<unsigned>(indexes_.size() + 1);
  ClosedIndex closed{open_.number, index_name(open_.number), write_index(open_, keys), {}};
  IndexEntry& entry = indexes_.emplace_back();
  entry.name = closed.name;
  entry.segments = open_.segments.size();
  entry.sha256 = sha256_hex(as_bytes(closed.text));
  for (const SegmentEntry& segment : open_.segments) {
    entry.raw_bytes += segment.raw_bytes;
    entry.stored_bytes += segment.stored_bytes;
    closed.segments.push_back({segment.name, segment.stored_bytes, {}, segment.etag});
  }
  open_.segments.clear();
  return closed;
}

}  // namespace guestagent

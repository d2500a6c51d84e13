#include "storage/segment_flow.h"

#include <string>
#include <utility>

namespace guestagent {

SegmentFlow::SegmentFlow(std::uint64_t memory, std::uint64_t segment, const SpillSettings& spill,
                         std::string_view snapshot_id, JobContext& job)
    : memory_(memory),
      segment_(Buffer::footprint(segment)),
      job_(job),
      on_cancel_(job.stop_token(), [this] { stop_.request_stop(); }),
      spill_(spill, snapshot_id),
      spilling_(spill.max_bytes > 0) {}

void SegmentFlow::fail(const std::exception& error) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_.emplace(error);
  }
  stop_.request_stop();
}

void SegmentFlow::throw_if_failed() const {
  job_.check_cancelled();
  const std::lock_guard lock(mutex_);
  if (failure_) failure_->raise();
}

void SegmentFlow::reserve() {
  std::unique_lock lock(mutex_);
  const auto patient_until = std::chrono::steady_clock::now() + kPatience;
  wanted_ = segment_;
  while (!fits(segment_)) {
    // Once segments wait on disk the store is known to be slow, and nothing is gained by waiting.
    const bool patient = spilled_.empty() && std::chrono::steady_clock::now() < patient_until;
    if (can_spill() && !patient) {
      spill_one(lock);
    } else if (patient) {
      changed_.wait_until(lock, stop_.get_token(), patient_until, [this] { return fits(segment_); });
    } else {
      changed_.wait(lock, stop_.get_token(), [this] { return fits(segment_) || can_spill(); });
    }
    check();
  }
  check();
  wanted_ = 0;
  used_ += segment_;
}

void SegmentFlow::spill_one(std::unique_lock<std::mutex>& lock) {
  // The youngest: senders take from the other end.
  SealedSegment segment = std::move(ready_.back());
  ready_.pop_back();
  const std::uint64_t footprint = Buffer::footprint(segment.stored.size());
  lock.unlock();
  bool saved = false;
  bool usable = true;
  try {
    saved = spill_.save(segment.number, segment.stored, segment.entry.sha256);
  } catch (const Error& error) {
    usable = false;
    job_.warn(std::string("segments can no longer wait on local disk, so a slow store holds up the source: ") +
              error.what());
  }
  if (saved) segment.stored.clear();
  lock.lock();
  if (saved) {
    used_ -= footprint;
    spilled_.emplace(segment.number, std::move(segment.entry));
  } else {
    spilling_ = usable;
    spill_full_ = true;
    ready_.push_back(std::move(segment));
  }
  changed_.notify_all();
}

void SegmentFlow::begin() {
  const std::lock_guard lock(mutex_);
  ++under_way_;
}

void SegmentFlow::unreserve() {
  const std::lock_guard lock(mutex_);
  used_ -= segment_;
  changed_.notify_all();
}

void SegmentFlow::wait_until_all_stored() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, stop_.get_token(), [this] { return under_way_ == 0; });
  check();
}

void SegmentFlow::ready(SealedSegment segment) {
  const std::lock_guard lock(mutex_);
  used_ -= segment_;
  used_ += Buffer::footprint(segment.stored.size());
  ready_.push_back(std::move(segment));
  changed_.notify_all();
}

bool SegmentFlow::can_load() const {
  return !spilled_.empty() && fits(wanted_ + Buffer::footprint(spilled_.begin()->second.stored_bytes));
}

SealedSegment SegmentFlow::take() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, stop_.get_token(), [this] { return !ready_.empty() || can_load(); });
  check();
  SealedSegment segment;
  if (!ready_.empty()) {
    segment = std::move(ready_.front());
    ready_.pop_front();
    return segment;
  }
  const auto first = spilled_.begin();
  segment.number = first->first;
  segment.entry = std::move(first->second);
  spilled_.erase(first);
  used_ += Buffer::footprint(segment.entry.stored_bytes);
  lock.unlock();
  segment.stored = spill_.load(segment.number);
  lock.lock();
  spill_full_ = false;
  changed_.notify_all();
  return segment;
}

void SegmentFlow::sent(SealedSegment segment) {
  const std::uint64_t footprint = Buffer::footprint(segment.stored.size());
  segment.stored.clear();
  const std::lock_guard lock(mutex_);
  used_ -= footprint;
  changed_.notify_all();
}

void SegmentFlow::stored() {
  const std::lock_guard lock(mutex_);
  --under_way_;
  changed_.notify_all();
}

}  // namespace guestagent

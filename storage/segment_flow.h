// Where the segments of one snapshot are between the source and the store, and how much memory they take. The threads
// of a SnapshotWriter meet here and nowhere else.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>

#include "base/job_context.h"
#include "storage/segment_coding.h"
#include "storage/spill.h"
#include "stream/ordered_tasks.h"

namespace guestagent {

// Thread-safe. A method that waits throws Stopped as soon as any thread has failed or the job is cancelled.
class SegmentFlow {
 public:
  // How long the source waits for the store before segments go to disk. A store that only hesitates costs no disk; a
  // tool that stands still for half a second at a time keeps up with its redo log.
  static constexpr std::chrono::milliseconds kPatience{500};

  struct Stopped {};

  // `memory` and `segment` in bytes; REQUIRES: memory >= 3 segments of whole chunks. `job` outlives it.
  SegmentFlow(std::uint64_t memory, std::uint64_t segment, const SpillSettings& spill, std::string_view snapshot_id,
              JobContext& job);

  std::stop_token stop_token() const { return stop_.get_token(); }

  // Runs `f` and keeps what it throws: the first failure of any thread stops all.
  template <typename F>
  void guard(F&& f) noexcept {
    try {
      f();
    } catch (const Stopped&) {
    } catch (const std::exception& e) {
      fail(e);
    }
  }
  void stop() { stop_.request_stop(); }
  // Throws the first failure, as an Error; cancelled when the job was.
  void throw_if_failed() const;

  // The source's thread: waits for memory for one more segment, and moves finished ones to disk when the store keeps it
  // waiting.
  void reserve();
  void check() const {
    if (stop_.stop_requested()) throw Stopped{};
  }
  // The reserved memory is that of a segment now; or it was not needed, since the stream has ended.
  void begin();
  void unreserve();
  void wait_until_all_stored();

  // A worker's: the segment waits to be sent.
  void ready(SealedSegment segment);

  // A sender's: one call for each ready(). Waits for a segment in memory, or on disk with memory for it.
  SealedSegment take();
  // It is on the store: its memory is freed.
  void sent(SealedSegment segment);
  // All that had to be done for one segment is done.
  void stored();

 private:
  void fail(const std::exception& error) noexcept;
  bool fits(std::uint64_t bytes) const { return used_ + bytes <= memory_; }
  bool can_load() const;
  bool can_spill() const { return spilling_ && !spill_full_ && !ready_.empty(); }
  void spill_one(std::unique_lock<std::mutex>& lock);

  const std::uint64_t memory_, segment_;
  JobContext& job_;
  std::stop_source stop_;
  std::stop_callback<std::function<void()>> on_cancel_;
  Spill spill_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<Failure> failure_;
  std::uint64_t used_ = 0;    // bytes of memory, in whole chunks
  std::uint64_t wanted_ = 0;  // what the source waits for: it goes before segments that wait on disk
  std::uint64_t under_way_ = 0;
  bool spilling_;
  bool spill_full_ = false;
  std::deque<SealedSegment> ready_;
  std::map<std::uint64_t, SegmentEntry> spilled_;
};

}  // namespace guestagent

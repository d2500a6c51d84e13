#include "storage/snapshot_reader.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "storage/key_files.h"
#include "storage/memory_plan.h"
#include "storage/segment_coding.h"
#include "storage/snapshots.h"
#include "stream/ordered_tasks.h"

namespace guestagent {
namespace {

// An object that the manifest promises. Its absence is a loss, and so is one that is larger than it says.
template <typename F>
Buffer promised(const std::string& object, std::uint64_t size, F&& get) {
  try {
    return get();
  } catch (const StoreError& error) {
    if (error.code() == Code::not_found) {
      throw Error(Code::data_loss, object + ": it is part of the snapshot, but not on the store: " + error.what(),
                  "the snapshot is incomplete: take a new one");
    }
    if (error.is_too_large()) {
      throw Error(Code::data_loss, object + ": it is larger on the store than the " + std::to_string(size) +
                                       " bytes that it can have: " + error.what());
    }
    throw;
  }
}

// A segment whose stored bytes are right. The index's digest says so, so that the store's own, which costs more, is
// only asked where something came that is not right: it tells what the way spoiled, which another try mends, from what
// the store lost.
Buffer get_segment(ObjectStore& store, const std::string& object, const SegmentEntry& entry, std::stop_token stop) {
  const auto right = [&](const Buffer& stored) { with_context(object, [&] { check_stored(entry, stored); }); };
  return promised(object, entry.stored_bytes,
                  [&] { return store.get_promised(object, entry.stored_bytes, right, stop); });
}

constexpr std::chrono::milliseconds kLookForCancel{200};

// What segments in flight have of the memory for them. Thread-safe; segments may outlive the reader.
class SegmentMemory {
 public:
  // One that is larger than all there is has it to itself.
  bool take(std::uint64_t bytes, std::uint64_t limit) {
    const std::lock_guard lock(mutex_);
    if (used_ > 0 && used_ + bytes > limit) return false;
    used_ += bytes;
    return true;
  }
  void give(std::uint64_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      used_ -= bytes;
    }
    given_.notify_all();
  }
  // For a while, or until something was given back.
  void wait() {
    std::unique_lock lock(mutex_);
    given_.wait_for(lock, kLookForCancel);
  }

 private:
  std::mutex mutex_;
  std::condition_variable given_;
  std::uint64_t used_ = 0;
};

class Share {
 public:
  Share(std::shared_ptr<SegmentMemory> of, std::uint64_t bytes) : of_(std::move(of)), bytes_(bytes) {}
  ~Share() { give(bytes_); }
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;
  void give(std::uint64_t bytes) {
    bytes = std::min(bytes, bytes_);
    bytes_ -= bytes;
    if (bytes > 0) of_->give(bytes);
  }

 private:
  std::shared_ptr<SegmentMemory> of_;
  std::uint64_t bytes_;
};

std::uint64_t footprint(const SegmentEntry& entry) {
  return std::max(Buffer::footprint(entry.raw_bytes), Buffer::footprint(entry.stored_bytes));
}

}  // namespace

struct SnapshotReader::State {
  struct Opened {
    Buffer raw;
    std::optional<Failure> failure;
  };
  struct Pending {
    std::shared_ptr<Share> share;
    std::uint64_t number = 0;
    std::future<Opened> opened;
  };

  State(ObjectStore& from, std::string_view href, const SnapshotSettings& settings, Throttle& limits, JobContext& of)
      : store(from), throttle(limits), job(of), on_cancel(of.stop_token(), [this] { stop.request_stop(); }) {
    coding.snapshot_id = snapshot_id_of(store, href);
    doing = "reading snapshot " + coding.snapshot_id;
    with_context(doing, [&] { read_manifest(settings); });
  }
  ~State() {
    stop.request_stop();
    fetchers.reset();
    workers.reset();
    pending.clear();
    current.clear();
    release_free_chunks();
  }

  std::string object(std::string_view leaf) const { return coding.snapshot_id + '/' + std::string(leaf); }
  void read_manifest(const SnapshotSettings& settings);
  const SegmentEntry* next_entry();
  void load_index(const IndexEntry& expected, unsigned number);
  void fetch_ahead();
  std::future<Opened> fetch(std::uint64_t number, SegmentEntry entry);
  void check_whole();
  std::optional<Piece> next();
  template <typename F>
  auto guarded(F&& f);
  std::size_t deliver(std::span<std::byte> into);
  std::size_t read(std::span<std::byte> into);

  ObjectStore& store;
  Throttle& throttle;
  JobContext& job;
  std::stop_source stop;
  std::stop_callback<std::function<void()>> on_cancel;
  SegmentCoding coding;
  std::string doing;
  Manifest manifest;
  Kind kind;
  MemoryPlan plan;

  // Which segment is to be fetched next, and what those before it add up to.
  SegmentIndex index;
  std::size_t next_in_index = 0;
  std::uint64_t segments = 0;
  SegmentListDigest digest;

  // What is under way and what is being delivered.
  std::shared_ptr<SegmentMemory> memory = std::make_shared<SegmentMemory>();
  std::deque<Pending> pending;
  Buffer current;
  std::shared_ptr<Share> current_share;
  std::size_t delivered_of_chunk = 0;
  std::uint64_t delivered = 0;
  bool whole = false;
  std::optional<Error> failure;

  // Last: their tasks use what stands above. A fetcher hands over to a worker.
  std::optional<WorkerPool> workers;
  std::optional<WorkerPool> fetchers;
};

void SnapshotReader::State::read_manifest(const SnapshotSettings& settings) {
  const auto take = [&](const Buffer& body) {
    const std::string text = body.text();
    coding.keys = keys_to_read(settings.encryption, manifest_key_id(text));
    manifest = parse_manifest(text, coding.keys_or_null());
    if (manifest.id != coding.snapshot_id) {
      throw Error(Code::data_loss, "manifest.id: it is the manifest of another snapshot, " + manifest.id);
    }
  };
  try {
    store.get_promised(object(kManifestName), kMaxManifestBytes, take, stop.get_token());
  } catch (const StoreError& error) {
    if (error.code() == Code::not_found) {
      throw Error(
          Code::not_found,
          std::string("there is no manifest: the snapshot does not exist or was never completed: ") + error.what(),
          "list_replication_snapshots shows what is there");
    }
    if (error.is_too_large()) throw Error(Code::data_loss, std::string("manifest: ") + error.what());
    throw;
  }
  coding.codec = manifest.codec;
  kind = {manifest.format, manifest.tool, manifest.digest};
  // All but the last segment are of one size.
  plan = plan_reading(settings, coding.codec, manifest.raw_bytes / manifest.segments);
  workers.emplace(plan.workers);
  fetchers.emplace(settings.transfers);
}

void SnapshotReader::State::load_index(const IndexEntry& expected, unsigned number) {
  const std::string name = object(expected.name);
  const auto right = [&](const Buffer& body) {
    if (sha256_hex(body) != expected.sha256) {
      throw Error(Code::data_loss, name + ": its bytes are not those that the manifest promises (sha256)");
    }
  };
  const std::string text = promised(name, kMaxIndexBytes, [&] {
                             return store.get_promised(name, kMaxIndexBytes, right, stop.get_token());
                           }).text();
  with_context(name, [&] {
    index = parse_index(text, coding.keys_or_null());
    std::uint64_t raw_bytes = 0;
    std::uint64_t stored_bytes = 0;
    for (const SegmentEntry& entry : index.segments) {
      raw_bytes += entry.raw_bytes;
      stored_bytes += entry.stored_bytes;
    }
    if (index.number != number || index.segments.size() != expected.segments || raw_bytes != expected.raw_bytes ||
        stored_bytes != expected.stored_bytes) {
      throw Error(Code::data_loss, "it does not list what the manifest says");
    }
  });
  next_in_index = 0;
}

const SegmentEntry* SnapshotReader::State::next_entry() {
  if (next_in_index == index.segments.size()) {
    if (index.number == manifest.indexes.size()) return nullptr;
    load_index(manifest.indexes[index.number], index.number + 1);
  }
  return &index.segments[next_in_index];
}

std::future<SnapshotReader::State::Opened> SnapshotReader::State::fetch(std::uint64_t number, SegmentEntry entry) {
  auto promise = std::make_shared<std::promise<Opened>>();
  std::future<Opened> opened = promise->get_future();
  const auto settle = [promise](auto&& work) {
    try {
      work();
    } catch (const std::exception& e) {
      promise->set_value({{}, Failure(e)});
    }
  };
  fetchers->run([this, promise, settle, number, entry = std::move(entry)] {
    settle([&] {
      throttle.download.take(entry.stored_bytes, stop.get_token());
      Buffer stored = get_segment(store, object(entry.name), entry, stop.get_token());
      workers->run([this, promise, settle, number, entry, stored = std::move(stored)]() mutable {
        settle([&] {
          Buffer raw =
              with_context(object(entry.name), [&] { return open_stored(coding, number, entry, std::move(stored)); });
          promise->set_value({std::move(raw), std::nullopt});
        });
      });
    });
  });
  return opened;
}

void SnapshotReader::State::fetch_ahead() {
  while (const SegmentEntry* entry = next_entry()) {
    const std::uint64_t bytes = footprint(*entry);
    if (!memory->take(bytes, plan.for_segments)) return;
    auto share = std::make_shared<Share>(memory, bytes);
    ++segments;
    ++next_in_index;
    digest.add(*entry);
    pending.push_back({std::move(share), segments, fetch(segments, *entry)});
  }
}

void SnapshotReader::State::check_whole() {
  if (segments != manifest.segments || delivered != manifest.raw_bytes || digest.finish() != manifest.digest) {
    throw Error(Code::data_loss, "the segments together are not what the manifest says (totals, digest)");
  }
  whole = true;
}

std::size_t SnapshotReader::State::deliver(std::span<std::byte> into) {
  std::size_t done = 0;
  {
    const Bytes rest = current.chunks().front().subspan(delivered_of_chunk);
    done = std::min(rest.size(), into.size());
    std::memcpy(into.data(), rest.data(), done);
    delivered_of_chunk += done;
    if (done < rest.size()) return done;
  }
  current.pop_front();
  delivered_of_chunk = 0;
  if (current.empty()) {
    current_share.reset();
  } else {
    current_share->give(kChunkBytes);
  }
  return done;
}

// The next segment, when it is there; nullopt at the good end.
std::optional<Piece> SnapshotReader::State::next() {
  job.check_cancelled();
  if (whole) return std::nullopt;
  fetch_ahead();
  // Others keep what they were given.
  while (pending.empty() && next_entry() != nullptr) {
    memory->wait();
    job.check_cancelled();
    fetch_ahead();
  }
  if (pending.empty()) {
    check_whole();
    return std::nullopt;
  }
  Pending first = std::move(pending.front());
  pending.pop_front();
  Opened opened = first.opened.get();
  if (opened.failure) opened.failure->raise();
  job.check_cancelled();
  return Piece{first.number, std::move(opened.raw), std::move(first.share)};
}

std::size_t SnapshotReader::State::read(std::span<std::byte> into) {
  job.check_cancelled();
  if (into.empty()) return 0;
  if (current.empty()) {
    std::optional<Piece> piece = next();
    if (!piece) return 0;
    current = std::move(piece->bytes);
    current_share = std::static_pointer_cast<Share>(piece->room);
  }
  const std::size_t n = deliver(into);
  delivered += n;
  if (delivered_of_chunk == 0) {
    job.progress(delivered, manifest.raw_bytes);
    fetch_ahead();
  }
  return n;
}

// After one failure there are only more of it.
template <typename F>
auto SnapshotReader::State::guarded(F&& f) {
  if (failure) throw *failure;
  try {
    return with_context(doing, f);
  } catch (const std::exception& e) {
    // A request that was broken off by the cancellation says something else.
    const bool cancelled = job.stop_token().stop_requested();
    failure = cancelled ? Error(Code::cancelled, doing + ": cancelled on request") : to_error(e);
    stop.request_stop();
    throw *failure;
  }
}

SnapshotReader::SnapshotReader(ObjectStore& store, std::string_view href, const SnapshotSettings& settings,
                               Throttle& throttle, JobContext& job)
    : state_(std::make_unique<State>(store, href, settings, throttle, job)) {}

SnapshotReader::~SnapshotReader() = default;

const Manifest& SnapshotReader::manifest() const {
  return state_->manifest;
}

const PieceSource::Kind& SnapshotReader::kind() const {
  return state_->kind;
}

std::size_t SnapshotReader::read(std::span<std::byte> into) {
  State& s = *state_;
  return s.guarded([&] { return s.read(into); });
}

std::optional<Piece> SnapshotReader::next_piece() {
  State& s = *state_;
  return s.guarded([&] {
    std::optional<Piece> piece = s.next();
    if (piece) {
      s.delivered += piece->bytes.size();
      s.job.progress(s.delivered, s.manifest.raw_bytes);
    }
    return piece;
  });
}

std::uint64_t SnapshotReader::skip(std::uint64_t pieces) {
  State& s = *state_;
  return s.guarded([&] {
    while (s.segments < pieces) {
      const SegmentEntry* entry = s.next_entry();
      if (entry == nullptr) break;
      ++s.segments;
      ++s.next_in_index;
      s.digest.add(*entry);
      s.delivered += entry->raw_bytes;
    }
    return s.delivered;
  });
}

}  // namespace guestagent

#include "storage/snapshot_writer.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/id.h"
#include "base/json.h"
#include "base/text.h"
#include "storage/claim.h"
#include "storage/key_files.h"
#include "storage/memory_plan.h"
#include "storage/segment_coding.h"
#include "storage/segment_flow.h"
#include "storage/segment_list.h"
#include "storage/snapshot_journal.h"
#include "storage/snapshots.h"
#include "stream/ordered_tasks.h"

namespace guestagent {
namespace {

// Not where the error says something of the segments themselves (one is not there, or is another), nor where everything
// else would be refused as well.
bool is_only_the_joined_stream(const StoreError& e) {
  const bool parts_missing = e.code() == Code::unavailable && e.brief() == "404";
  const bool not_let_in = e.code() == Code::permission_denied && e.brief().find("403") == std::string::npos;
  return e.code() != Code::cancelled && e.code() != Code::data_loss && !parts_missing && !not_let_in;
}

struct ReleaseChunksAtEnd {
  ~ReleaseChunksAtEnd() { release_free_chunks(); }
};

}  // namespace

struct SnapshotWriter::State {
  State(ObjectStore& to, std::string id, const SnapshotSettings& with, Throttle& limits, JobContext& of,
        std::string host)
      : store(to), settings(with), throttle(limits), job(of), claim(new_claim(std::move(host))) {
    coding.snapshot_id = std::move(id);
    coding.codec = codec_from(settings.compression);
    coding.level = settings.level;
    if (const std::string& key = settings.encryption.write_key; !key.empty()) {
      coding.keys = load_keys(settings.encryption, key);
    }
    // Encrypted segments joined are a stream for nobody.
    joinable = !coding.keys;
  }

  std::string object(std::string_view leaf) const { return coding.snapshot_id + '/' + std::string(leaf); }
  std::string doing() const { return "storing snapshot " + coding.snapshot_id; }

  void record_in_journal(bool is_claimed, const std::string& manifest = {});
  void make_ours();
  void check_ours() { check_claim(store, coding.snapshot_id, claim.token, system_clock(), job.stop_token()); }
  std::string put(std::string_view leaf, const Buffer& body, std::stop_token stop);
  Buffer read_segment(ByteSource& stream, std::uint64_t size, const SegmentFlow& flow);
  void end_where_a_reader_can_begin(Buffer& raw, const ByteSource& stream);
  void send(SegmentFlow& flow);
  void put_index(ClosedIndex index, std::stop_token stop);
  void join(std::string_view leaf, std::vector<ObjectInfo> parts_of, std::stop_token stop);
  void give_up_joining(const StoreError& why, std::stop_token stop);
  void join_part(unsigned number, std::vector<ObjectInfo> segments, std::stop_token stop);
  void join_stream(const std::string& leaf, std::stop_token stop);

  ObjectStore& store;
  const SnapshotSettings settings;
  Throttle& throttle;
  JobContext& job;
  SegmentCoding coding;
  const Claim claim;
  bool claimed = false;
  Buffer carried;  // read, and of the next segment
  std::uint64_t read_bytes = 0;
  std::optional<std::uint64_t> expected_bytes;

  std::mutex mutex;  // of what follows, while write() runs
  SegmentList list;
  std::uint64_t stored_raw_bytes = 0;
  // For the joined stream: its parts are the segments of the only index, or one joined object for each of several.
  bool joinable = false;
  std::vector<ObjectInfo> first_segments;
  std::map<unsigned, ObjectInfo> parts;
};

void SnapshotWriter::State::record_in_journal(bool is_claimed, const std::string& manifest) {
  ObjectsStep step;
  step.snapshot_id = coding.snapshot_id;
  step.spill = spill_path(settings.spill, coding.snapshot_id).string();
  step.href = with_context(doing(), [&] { return store.href(object(kManifestName)); });
  step.token = claim.token;
  step.claimed = is_claimed;
  if (!manifest.empty()) step.manifest_sha256 = sha256_hex(as_bytes(manifest));
  job.journal().record(kObjectsStep, write_objects_step(step));
}

void SnapshotWriter::State::make_ours() {
  if (claimed) return;
  record_in_journal(false);
  make_claim(store, coding.snapshot_id, claim, system_clock(), job.stop_token());
  record_in_journal(true);
  claimed = true;
}

// Answers the store's own digest of it.
std::string SnapshotWriter::State::put(std::string_view leaf, const Buffer& body, std::stop_token stop) {
  NewObject made = with_context(doing(), [&] { return store.put_new(object(leaf), body, stop); });
  if (made.ours) return std::move(made.etag);
  check_ours();
  throw Error(Code::already_exists, doing() + ": " + object(leaf) + " is there already, and was not sent from here",
              "somebody else writes there too: take the snapshot again, with another snapshot_id");
}

Buffer SnapshotWriter::State::read_segment(ByteSource& stream, std::uint64_t size, const SegmentFlow& flow) {
  Buffer raw = std::move(carried);
  while (raw.size() < size) {
    std::span<std::byte> room = raw.room();
    room = room.first(static_cast<std::size_t>(std::min<std::uint64_t>(room.size(), size - raw.size())));
    const std::size_t n = stream.read(room);
    if (n == 0) break;
    raw.commit(n);
    read_bytes += n;
    throttle.read.take(n, flow.stop_token());
    flow.check();
  }
  if (raw.size() == size) end_where_a_reader_can_begin(raw, stream);
  return raw;
}

// A segment that begins in the middle of something says nothing without the one before it. Not for any price: one of a
// few bytes costs as many requests as a whole one.
void SnapshotWriter::State::end_where_a_reader_can_begin(Buffer& raw, const ByteSource& stream) {
  const std::uint64_t begin = read_bytes - raw.size(), start = stream.last_start();
  if (start > begin + raw.size() / 4 && start < read_bytes && read_bytes - start < kCarriedBytes)
    carried = raw.split(start - begin);
}

void SnapshotWriter::State::send(SegmentFlow& flow) {
  SealedSegment segment = flow.take();
  const std::uint64_t number = segment.number;
  SegmentEntry entry = segment.entry;
  throttle.upload.take(segment.stored.size(), flow.stop_token());
  flow.check();
  entry.etag = put(entry.name, segment.stored, flow.stop_token());
  failpoint("snapshot:segment");
  flow.sent(std::move(segment));
  std::vector<ClosedIndex> full;
  {
    const std::lock_guard lock(mutex);
    stored_raw_bytes += entry.raw_bytes;
    full = list.add(number, std::move(entry), coding.keys_or_null());
    job.progress(stored_raw_bytes, expected_bytes);
  }
  // So that a copy of hours does not go on for nothing.
  if (!full.empty()) check_ours();
  for (ClosedIndex& index : full) put_index(std::move(index), flow.stop_token());
  flow.stored();
}

void SnapshotWriter::State::put_index(ClosedIndex index, std::stop_token stop) {
  put(index.name, Buffer::from(index.text), stop);
  if (index.number == 1) {
    const std::lock_guard lock(mutex);
    first_segments = std::move(index.segments);
  } else {
    join_part(index.number, std::move(index.segments), stop);
  }
}

void SnapshotWriter::State::join(std::string_view leaf, std::vector<ObjectInfo> of, std::stop_token stop) {
  for (ObjectInfo& part : of) part.name = object(part.name);
  bool joined = false;
  try {
    joined = store.join(object(leaf), of, stop);
  } catch (const StoreError& e) {
    if (!is_only_the_joined_stream(e)) {
      // Segments that are not there may be so because somebody deletes them.
      if (e.code() != Code::cancelled) check_ours();
      throw e.with_context(doing());
    }
    give_up_joining(e, stop);
  }
  const std::lock_guard lock(mutex);
  joinable = joinable && joined;
}

// It is for people and other tools, and the snapshot is whole without it.
void SnapshotWriter::State::give_up_joining(const StoreError& why, std::stop_token stop) {
  std::string left;
  try {
    std::vector<std::string> begun;
    store.list(
        object("stream."), [&](const ObjectInfo& info) { begun.push_back(info.name); }, stop);
    for (const std::string& name : begun) store.remove(name, stop);
  } catch (const StoreError& e) {
    if (e.code() == Code::cancelled) throw;
    left = std::string("; what was begun of it stays until the snapshot is deleted: ") + e.what();
  }
  job.warn(
      "the store does not make one large object of the segments, which the snapshot does not need "
      "(storage.swift.large_object: false "
      "spares the try): " +
      std::string(why.what()) + left);
}

void SnapshotWriter::State::join_part(unsigned number, std::vector<ObjectInfo> segments, std::stop_token stop) {
  ObjectInfo part;
  part.name = "stream.part-" + index_name(number).substr(6, 6);
  for (const ObjectInfo& segment : segments) part.size += segment.size;
  {
    const std::lock_guard lock(mutex);
    if (!joinable) return;
    parts.emplace(number, part);
  }
  join(part.name, std::move(segments), stop);
}

void SnapshotWriter::State::join_stream(const std::string& leaf, std::stop_token stop) {
  if (!joinable) return;
  if (list.indexes() == 1) return join(leaf, std::move(first_segments), stop);
  join_part(1, std::move(first_segments), stop);
  if (!joinable) return;
  std::vector<ObjectInfo> all;
  for (auto& [number, part] : parts) all.push_back(std::move(part));
  join(leaf, std::move(all), stop);
}

SnapshotWriter::SnapshotWriter(ObjectStore& store, std::string id, const SnapshotSettings& settings, Throttle& throttle,
                               JobContext& job, std::string host) {
  if (!valid_id(id)) {
    throw Error(Code::invalid_argument, "storing a snapshot: \"" + printable(id) + "\" is no snapshot id",
                "letters, digits, '.', '_' and '-', at most 64, the first a letter or digit");
  }
  check_id_is_free(store, id, job.stop_token());
  state_ = std::make_unique<State>(store, std::move(id), settings, throttle, job, std::move(host));
}

SnapshotWriter::~SnapshotWriter() = default;

void SnapshotWriter::claim() {
  state_->make_ours();
}

void SnapshotWriter::write(ByteSource& stream, std::optional<std::uint64_t> expected_bytes) {
  State& s = *state_;
  s.expected_bytes = expected_bytes;
  s.make_ours();
  const MemoryPlan plan = plan_writing(s.settings, s.coding.codec);
  const ReleaseChunksAtEnd release;
  SegmentFlow flow(plan.for_segments, plan.segment_bytes, s.settings.spill, s.coding.snapshot_id, s.job);
  {
    WorkerPool senders(s.settings.transfers);
    WorkerPool workers(plan.workers);
    flow.guard([&] {
      for (std::uint64_t number = 1;; ++number) {
        flow.reserve();
        Buffer raw = s.read_segment(stream, plan.segment_bytes, flow);
        if (raw.empty()) break;
        flow.begin();
        workers.run([&, number, raw = std::move(raw)]() mutable {
          flow.guard([&] {
            flow.ready(seal_segment(s.coding, number, std::move(raw)));
            senders.run([&] { flow.guard([&] { s.send(flow); }); });
          });
        });
      }
      flow.unreserve();
      flow.wait_until_all_stored();
    });
    flow.stop();
  }
  flow.throw_if_failed();
}

SnapshotSummary SnapshotWriter::finish(const StreamFacts& facts) {
  State& s = *state_;
  const std::stop_token stop = s.job.stop_token();
  if (auto last = s.list.close_last(s.coding.keys_or_null())) s.put_index(std::move(*last), stop);
  if (s.list.indexes() == 0) {
    throw Error(Code::data_loss, s.doing() + ": the stream was empty",
                "no tool writes an empty copy: see what it said");
  }
  s.join_stream(stream_name(facts.format, s.coding.codec), stop);
  SnapshotSummary summary;
  Manifest& manifest = summary.manifest;
  s.list.describe(manifest);
  manifest.id = s.coding.snapshot_id;
  manifest.created_at = system_clock().now();
  manifest.tool = facts.tool;
  manifest.format = facts.format;
  manifest.codec = s.coding.codec;
  if (s.coding.keys) manifest.encryption_key = s.coding.keys->id;
  manifest.dataset_json = facts.dataset_json;
  manifest.requires_list = facts.requires_list;
  s.job.check_cancelled();
  failpoint("snapshot:manifest");
  drop_second_claim(s.store, s.coding.snapshot_id, s.claim, stop);
  const std::string text = write_manifest(manifest, s.coding.keys_or_null());
  s.record_in_journal(true, text);
  // Before, so that nobody's deletion is overlooked; after, since it may have begun in between and found no manifest
  // yet.
  s.check_ours();
  s.put(kManifestName, Buffer::from(text), stop);
  s.check_ours();
  summary.href = s.store.href(s.object(kManifestName));
  return summary;
}

}  // namespace guestagent

// Where segments end, and segments as pieces that several threads work on.
#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "tests/support/snapshot_fixture.h"

namespace guestagent {
namespace {

using test::code_of;
using test::page_bytes;
using test::StringSource;
using test::TestJob;

class SnapshotPieces : public test::SnapshotFixture {
 protected:
  SnapshotReader reader(JobContext& reading, const std::string& id = "snap") {
    return SnapshotReader(store, store.href(id + "/manifest.json"), settings, throttle, reading);
  }
};

// A stream that can be begun at each of `starts`.
class WithStarts : public StringSource {
 public:
  WithStarts(std::string bytes, std::vector<std::uint64_t> starts, std::size_t piece)
      : StringSource(std::move(bytes), piece), starts_(std::move(starts)) {}
  std::size_t read(std::span<std::byte> into) override {
    const std::size_t n = StringSource::read(into);
    at_ += n;
    return n;
  }
  std::uint64_t last_start() const override {
    std::uint64_t last = 0;
    for (const std::uint64_t start : starts_) {
      if (start <= at_) last = std::max(last, start);
    }
    return last;
  }

 private:
  std::vector<std::uint64_t> starts_;
  std::uint64_t at_ = 0;
};

TEST_F(SnapshotPieces, SegmentsEndWhereAReaderCanBegin) {
  const std::string bytes = page_bytes(6 * kSegment, 1);
  // The third lies too early in its segment to be worth it; after the last there is none for two segments.
  const std::vector<std::uint64_t> starts = {9000, 18999, 19000, 19100, 24000, 24001};
  for (const std::size_t piece : {7UL, 500UL, 65536UL}) {
    const std::string id = "by-" + std::to_string(piece);
    WithStarts source(bytes, starts, piece);
    write_from(source, id);
    TestJob reading;
    SnapshotReader from = reader(reading, id);
    std::vector<std::uint64_t> ends;
    std::string read;
    while (const auto next = from.next_piece()) {
      EXPECT_EQ(next->number, ends.size() + 1);
      read += next->bytes.text();
      ends.push_back(read.size());
    }
    EXPECT_EQ(read, bytes);
    EXPECT_EQ(ends, (std::vector<std::uint64_t>{9000, 19000, 24001, 34001, 44001, 54001, 60000})) << piece;
  }
}

TEST_F(SnapshotPieces, WhatIsSkippedIsNotFetched) {
  const std::string bytes = page_bytes(5 * kSegment + 17, 2);
  for (const std::string key : {"", "k1"}) {
    if (!key.empty()) use_key(key, 'x');
    const std::string id = "snap" + key;
    write(bytes, id);
    for (std::uint64_t skipped = 0; skipped <= 6; ++skipped) {
      std::atomic<std::uint64_t> fetched = 0;
      store.before = [&](const std::string& verb, const std::string& name) {
        if (verb == "get" && name.find("segment") != std::string::npos) ++fetched;
      };
      TestJob reading;
      SnapshotReader from = reader(reading, id);
      EXPECT_EQ(from.skip(skipped), std::min<std::uint64_t>(skipped * kSegment, bytes.size()));
      std::string rest;
      while (const auto next = from.next_piece()) rest += next->bytes.text();
      EXPECT_EQ(rest, bytes.substr(std::min<std::size_t>(skipped * kSegment, bytes.size())));
      EXPECT_EQ(fetched, 6 - skipped);
      EXPECT_EQ(reading.done(), skipped == 6 ? 0 : bytes.size());
      store.before = {};
    }
  }
}

TEST_F(SnapshotPieces, ADamagedSegmentIsNoPieceAndNeitherIsWhatFollows) {
  write(page_bytes(4 * kSegment, 3));
  store.on_get = [](const std::string& name, std::string& body) {
    if (name == "snap/segment-00000003") body[body.size() / 2] ^= 1;
  };
  TestJob reading;
  SnapshotReader from = reader(reading);
  EXPECT_TRUE(from.next_piece());
  EXPECT_TRUE(from.next_piece());
  EXPECT_EQ(code_of([&] { from.next_piece(); }), "DATA_LOSS");
  EXPECT_EQ(code_of([&] { from.next_piece(); }), "DATA_LOSS");
}

// Pieces that are kept have their memory; given back in any order and by any thread, and after the reader has gone.
TEST_F(SnapshotPieces, PiecesThatAreKeptHoldUpTheNextOnes) {
  settings.segment_bytes = kChunkBytes;
  settings.memory_limit = 0;  // one segment at a time
  settings.workers = 1;
  const std::string bytes = page_bytes(4 * kChunkBytes, 4);
  write(bytes);
  std::optional<Piece> kept;
  std::string read;
  {
    TestJob reading;
    SnapshotReader from = reader(reading);
    kept = from.next_piece();
    ASSERT_TRUE(kept);
    read = kept->bytes.text();
    std::thread giver([&] {
      std::this_thread::sleep_for(Millis(50));
      kept.reset();
    });
    auto second = from.next_piece();
    giver.join();
    ASSERT_TRUE(second);
    EXPECT_FALSE(kept) << "it came before there was memory for it";
    read += second->bytes.text();
    second.reset();
    while (auto next = from.next_piece()) {
      read += next->bytes.text();
      kept = std::move(next);
      kept->bytes.clear();
      kept->room.reset();
    }
  }
  EXPECT_EQ(read, bytes);
  TestJob cancelled;
  SnapshotReader from = reader(cancelled);
  kept = from.next_piece();
  std::thread canceller([&] {
    std::this_thread::sleep_for(Millis(50));
    cancelled.cancel();
  });
  EXPECT_EQ(code_of([&] { from.next_piece(); }), "CANCELLED");
  canceller.join();
}

}  // namespace
}  // namespace guestagent

// What is written is read back, whatever its size; and stock tools read it without us.
#include <gmock/gmock.h>

#include <cstdlib>
#include <set>

#include "base/json.h"
#include "stream/codec.h"
#include "tests/support/snapshot_fixture.h"

namespace guestagent {
namespace {

using test::code_of;
using test::error_of;
using test::page_bytes;
using test::random_bytes;
using test::StringSource;
using ::testing::Contains;
using ::testing::HasSubstr;

class SnapshotRoundTrip : public test::SnapshotFixture {};

TEST_F(SnapshotRoundTrip, EverySizeNearASegment) {
  int n = 0;
  for (const std::size_t size :
       {std::size_t{1}, kSegment - 1, kSegment, kSegment + 1, 2 * kSegment, 7 * kSegment + 123}) {
    const std::string bytes = page_bytes(size, size);
    const std::string id = "s" + std::to_string(++n);
    const SnapshotSummary summary = write(bytes, id);
    EXPECT_EQ(read(store, id), bytes);
    EXPECT_EQ(summary.manifest.raw_bytes, size);
    EXPECT_EQ(summary.manifest.segments, (size + kSegment - 1) / kSegment);
    EXPECT_EQ(summary.href, "memory://" + id + "/manifest.json");
  }
}

TEST_F(SnapshotRoundTrip, EveryCodecClearAndEncrypted) {
  const std::string bytes = page_bytes(5 * kSegment + 17, 1) + random_bytes(2 * kSegment, 2);
  use_key("k1", 'x');
  for (const std::string codec : {"zstd", "lz4", "gzip", "none"}) {
    for (const std::string key : {"", "k1"}) {
      settings.compression = codec;
      settings.encryption.write_key = key;
      const std::string id = codec + (key.empty() ? "-clear" : "-encrypted");
      const SnapshotSummary summary = write(bytes, id);
      EXPECT_EQ(summary.manifest.encryption_key.has_value(), !key.empty());
      settings.encryption.write_key.clear();
      EXPECT_EQ(read(store, id), bytes) << id;
    }
  }
}

TEST_F(SnapshotRoundTrip, SegmentsLargerThanAChunk) {
  settings.segment_bytes = 3 * kChunkBytes + 100;
  const std::string bytes = page_bytes(20 * kChunkBytes + 77, 3);
  for (const std::string key : {"", "k1"}) {
    if (!key.empty()) use_key(key, 'y');
    write(bytes, "big" + key);
    EXPECT_EQ(read(store, "big" + key), bytes);
  }
}

TEST_F(SnapshotRoundTrip, ManySegmentsFillSeveralIndexes) {
  settings.segment_bytes = 100;
  const std::string bytes = page_bytes(2345 * 100 - 7, 4);
  const SnapshotSummary summary = write(bytes);
  ASSERT_EQ(summary.manifest.indexes.size(), 3U);
  EXPECT_EQ(summary.manifest.indexes[0].segments, 1000U);
  EXPECT_EQ(summary.manifest.indexes[1].segments, 1000U);
  EXPECT_EQ(summary.manifest.indexes[2].segments, 345U);
  EXPECT_EQ(read(store), bytes);
  EXPECT_THAT(store.names(), Contains("snap/stream.part-000003"));
  settings.segment_bytes = 10;
  write(page_bytes(10 * 1000, 5), "exactly-one-index");
  EXPECT_EQ(read(store, "exactly-one-index"), page_bytes(10 * 1000, 5));
  EXPECT_FALSE(store.has("exactly-one-index/index-000002.json"));
}

TEST_F(SnapshotRoundTrip, TheJoinedStreamIsAFileOfTheStockTool) {
  settings.segment_bytes = 100;
  for (const std::size_t segments : {std::size_t{7}, std::size_t{1000}, std::size_t{2001}}) {
    for (const std::string codec : {"zstd", "lz4", "gzip"}) {
      settings.compression = codec;
      const std::string id = codec + std::to_string(segments);
      const std::string bytes = page_bytes(segments * 100, segments);
      write(bytes, id);
      const std::string name = id + "/stream.xbstream." + std::string(codec_suffix(codec_from(codec)));
      ASSERT_THAT(store.names(), Contains(name));
      write_file_atomic(job.dir() / "joined", store.text(name));
      const std::string command =
          codec + " -d < " + (job.dir() / "joined").string() + " > " + (job.dir() / "raw").string();
      ASSERT_EQ(std::system(command.c_str()), 0) << command;
      EXPECT_EQ(read_file(job.dir() / "raw"), bytes);
    }
  }
}

TEST_F(SnapshotRoundTrip, AStoreThatCannotJoinIsFine) {
  store.can_join = false;
  settings.segment_bytes = 100;
  const std::string bytes = page_bytes(1500 * 100, 6);
  write(bytes);
  for (const std::string& name : store.names()) EXPECT_THAT(name, ::testing::Not(HasSubstr("stream.")));
  EXPECT_EQ(read(store), bytes);
}

TEST_F(SnapshotRoundTrip, EncryptedSnapshotsShowNoRawDigestAndNoJoinedStream) {
  use_key("k1", 'z');
  const std::string bytes(3 * kSegment, 'a');
  write(bytes);
  EXPECT_EQ(store.names(),
            (std::vector<std::string>{"snap/claim.json", "snap/index-000001.json", "snap/manifest.json",
                                      "snap/segment-00000001", "snap/segment-00000002", "snap/segment-00000003"}));
  EXPECT_THAT(store.text("snap/index-000001.json"), ::testing::Not(HasSubstr("xxh3")));
  EXPECT_NE(store.text("snap/segment-00000001"), store.text("snap/segment-00000002"));
}

TEST_F(SnapshotRoundTrip, AnEmptyStreamIsNoSnapshot) {
  StringSource empty("");
  SnapshotWriter writer(store, "snap", settings, throttle, job);
  writer.write(empty, 0);
  EXPECT_EQ(code_of([&] { writer.finish(facts()); }), "DATA_LOSS");
  EXPECT_EQ(store.names(), std::vector<std::string>{"snap/claim.json"});
}

TEST_F(SnapshotRoundTrip, TheManifestIsWrittenLast) {
  std::vector<std::string> puts;
  std::mutex mutex;
  store.before = [&](const std::string& verb, const std::string& name) {
    const std::lock_guard lock(mutex);
    if (verb == "put" || verb == "join") puts.push_back(name);
  };
  write(page_bytes(5 * kSegment, 7));
  EXPECT_EQ(puts.size(), 9U);
  EXPECT_EQ(puts.front(), "snap/claim.json");
  EXPECT_EQ(puts.back(), "snap/manifest.json");
  EXPECT_EQ(puts[puts.size() - 2], "snap/stream.xbstream.zst");
  EXPECT_EQ(puts[puts.size() - 3], "snap/index-000001.json");
}

TEST_F(SnapshotRoundTrip, ATakenIdIsRefused) {
  write("some bytes");
  EXPECT_EQ(code_of([&] { write("others"); }), "ALREADY_EXISTS");
  store.set("leftover/segment-00000007", "x");
  EXPECT_EQ(code_of([&] { write("others", "leftover"); }), "ALREADY_EXISTS");
  EXPECT_EQ(read(store), "some bytes");
  for (const std::string id : {"", ".", "-a", "a/b", "a b", "../x"}) {
    EXPECT_EQ(code_of([&] { write("bytes", id); }), "INVALID_ARGUMENT") << id;
  }
  // "snap" is a beginning of this one, but another snapshot.
  write("others", "snapshot");
}

TEST_F(SnapshotRoundTrip, TheJournalNamesWhatIsAboutToBeStored) {
  store.before = [&](const std::string& verb, const std::string&) {
    EXPECT_TRUE(verb != "put" || job.journal().find("objects") != nullptr);
  };
  write("bytes", "my-id");
  const Journal::Step* step = job.journal().find("objects");
  ASSERT_NE(step, nullptr);
  const JsonDocument data = parse_json(step->data, "step");
  EXPECT_EQ(JsonReader(data, "step").string("snapshot_id"), "my-id");
  EXPECT_EQ(JsonReader(data, "step").string("spill"), (settings.spill.dir / "my-id").string());
}

TEST_F(SnapshotRoundTrip, ProgressEndsAtTheWholeAndNeverGoesBack) {
  const std::string bytes = page_bytes(20 * kSegment, 8);
  write(bytes);
  EXPECT_EQ(job.done(), bytes.size());
  EXPECT_EQ(job.total(), bytes.size());
  EXPECT_FALSE(job.went_back());
  test::TestJob reading;
  read(store, "snap", reading);
  EXPECT_EQ(reading.done(), bytes.size());
  EXPECT_EQ(reading.total(), bytes.size());
  EXPECT_FALSE(reading.went_back());
}

TEST_F(SnapshotRoundTrip, TheKeyDecides) {
  use_key("k1", 'a');
  const std::string bytes = page_bytes(3 * kSegment, 9);
  write(bytes);
  use_key("k2", 'b');
  EXPECT_EQ(read(store), bytes) << "several keys to read, one to write";
  settings.encryption.keys.erase(settings.encryption.keys.begin());
  Error error = error_of([&] { read(store); });
  EXPECT_EQ(error.code(), Code::failed_precondition);
  EXPECT_THAT(error.what(), HasSubstr("k1"));
  settings.encryption.keys = {{"k1", job.dir() / "key-k2"}};
  EXPECT_EQ(code_of([&] { read(store); }), "DATA_LOSS") << "another key under the same id";
  settings.encryption.write_key = "k3";
  EXPECT_EQ(code_of([&] { write(bytes, "other"); }), "FAILED_PRECONDITION");
}

TEST_F(SnapshotRoundTrip, AddressesElsewhereGetNoRequest) {
  write("bytes");
  store.before = [](const std::string&, const std::string& name) { ADD_FAILURE() << "asked for " << name; };
  const auto open = [&](const std::string& href) { SnapshotReader reader(store, href, settings, throttle, job); };
  EXPECT_EQ(code_of([&] { open("http://elsewhere/snap/manifest.json"); }), "PERMISSION_DENIED");
  EXPECT_EQ(code_of([&] { open("memory://snap/segment-00000001"); }), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of([&] { open("memory://manifest.json"); }), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of([&] { open("memory://a/b/manifest.json"); }), "INVALID_ARGUMENT");
}

TEST_F(SnapshotRoundTrip, ReadsInAnyPieces) {
  const std::string bytes = page_bytes(3 * kSegment + 5, 10);
  write(bytes);
  for (const std::size_t piece : {std::size_t{1}, std::size_t{999}, std::size_t{10000}, std::size_t{1000000}}) {
    SnapshotReader reader(store, store.href("snap/manifest.json"), settings, throttle, job);
    std::vector<std::byte> part(piece);
    std::string got;
    while (const std::size_t n = reader.read(part)) got.append(reinterpret_cast<const char*>(part.data()), n);
    EXPECT_EQ(got, bytes);
    EXPECT_EQ(reader.read(part), 0U) << "the end stays the end";
  }
}

}  // namespace
}  // namespace guestagent

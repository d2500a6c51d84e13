// Stores that fail, hang and are slow, sources that die, jobs that are cancelled: no false success, nothing left, no
// end without end.
#include <gmock/gmock.h>

#include <atomic>
#include <condition_variable>
#include <thread>

#include "storage/memory_plan.h"
#include "storage/spill.h"
#include "tests/support/snapshot_fixture.h"

namespace guestagent {
namespace {

using test::code_of;
using test::error_of;
using test::page_bytes;
using test::random_bytes;
using test::StringSource;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

StoreError unavailable() {
  return StoreError(Code::unavailable, "put: 503", "try later", true, std::nullopt, "503");
}

bool is_put_of_segment(const std::string& verb, const std::string& name) {
  return verb == "put" && name.find("/segment-") != std::string::npos;
}

// Holds the calls of a store back until it is opened, or they are told to stop.
class Gate {
 public:
  void pass(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, stop, [this] { return open_; });
    --waiting_;
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void await_waiting(unsigned count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  unsigned waiting_ = 0;
  bool open_ = false;
};

class SnapshotFaults : public test::SnapshotFixture {
 protected:
  fs::path spill_dir() const { return settings.spill.dir / "snap"; }
  std::size_t spilled_files() const {
    std::error_code gone;
    std::size_t count = 0;
    for (fs::directory_iterator at(spill_dir(), gone), end; !gone && at != end; at.increment(gone)) ++count;
    return count;
  }
  void await_spilled(std::size_t count) const {
    while (spilled_files() < count) std::this_thread::sleep_for(Millis(1));
  }
  void expect_nothing_but_segments() const {
    for (const std::string& name : store.names())
      EXPECT_THAT(name, testing::AnyOf(HasSubstr("/segment-"), HasSubstr("/claim.json")));
    EXPECT_TRUE(spill_is_gone());
  }
};

TEST_F(SnapshotFaults, APutThatFailsFailsTheSnapshotWhicheverItIs) {
  const std::string bytes = page_bytes(9 * kSegment, 1);
  // The claim, 9 segments, the index, the manifest.
  for (int failing = 1; failing <= 12; ++failing) {
    for (const bool stored_before_failing : {false, true}) {
      store.reset();
      std::atomic<int> calls = 0;
      const auto fail = [&](const std::string& verb, const std::string&) {
        if (verb == "put" && ++calls == failing) throw unavailable();
      };
      (stored_before_failing ? store.after : store.before) = fail;
      const Error error = error_of([&] { write(bytes); });
      EXPECT_EQ(error.code(), Code::unavailable);
      EXPECT_THAT(error.what(), HasSubstr("storing snapshot snap: put: 503"));
      const int calls_at_the_end = calls;
      EXPECT_TRUE(spill_is_gone());
      EXPECT_EQ(store.has("snap/manifest.json"), failing == 12 && stored_before_failing);
      EXPECT_EQ(calls, calls_at_the_end) << "a thread goes on after the end";
    }
  }
}

TEST_F(SnapshotFaults, AJoinedStreamThatTheStoreDoesNotMakeIsAWarning) {
  const std::string bytes = page_bytes(9 * kSegment, 1);
  const struct {
    const char* brief;
    Code code;
  } kRefused[] = {
      {"501", Code::unavailable},        {"405", Code::failed_precondition}, {"403", Code::permission_denied},
      {"413", Code::resource_exhausted}, {"400", Code::failed_precondition}, {"500", Code::unavailable},
      {"404", Code::not_found},          {"garbage", Code::unavailable},     {"stalled 30 s", Code::unavailable},
      {"507", Code::resource_exhausted}, {"429", Code::unavailable},
  };
  for (const auto& refused : kRefused) {
    for (const bool stored_before_failing : {false, true}) {
      store.reset();
      const auto fail = [&](const std::string& verb, const std::string&) {
        if (verb == "join") throw StoreError(refused.code, "join: refused", "", false, std::nullopt, refused.brief);
      };
      (stored_before_failing ? store.after : store.before) = fail;
      const std::size_t warnings = job.warnings().size();
      EXPECT_EQ(write(bytes).manifest.segments, 9U) << refused.brief;
      ASSERT_EQ(job.warnings().size(), warnings + 1) << refused.brief;
      EXPECT_THAT(job.warnings().back(), HasSubstr("join: refused"));
      for (const std::string& name : store.names())
        EXPECT_THAT(name, testing::Not(HasSubstr("stream"))) << "what was begun is removed";
      EXPECT_EQ(read(store), bytes);
    }
  }
}

TEST_F(SnapshotFaults, AJoinThatSaysSomethingOfTheSegmentsIsAnError) {
  const struct {
    const char* brief;
    Code code;
  } kTold[] = {{"401", Code::permission_denied},
               {"login 401", Code::permission_denied},
               {"TLS", Code::permission_denied},
               {"404", Code::unavailable},
               {"400", Code::data_loss}};
  for (const auto& told : kTold) {
    store.reset();
    store.before = [&](const std::string& verb, const std::string&) {
      if (verb == "join") throw StoreError(told.code, "join: no", "", false, std::nullopt, told.brief);
    };
    EXPECT_EQ(error_of([&] { write(page_bytes(9 * kSegment, 1)); }).code(), told.code) << told.brief;
    EXPECT_FALSE(store.has("snap/manifest.json"));
  }
}

TEST_F(SnapshotFaults, OneOfManyJoinsThatFailsEndsAllOfThem) {
  settings.segment_bytes = 100;
  std::atomic<int> joins = 0;
  store.before = [&](const std::string& verb, const std::string&) {
    if (verb == "join" && ++joins == 2)
      throw StoreError(Code::failed_precondition, "join: 405", "", false, std::nullopt, "405");
  };
  const std::string bytes = page_bytes(3500 * 100, 1);
  write(bytes);
  EXPECT_EQ(job.warnings().size(), 1U);
  EXPECT_EQ(joins, 2);
  for (const std::string& name : store.names()) EXPECT_THAT(name, testing::Not(HasSubstr("stream")));
  EXPECT_EQ(read(store), bytes);
}

class DyingSource : public StringSource {
 public:
  DyingSource(std::string bytes, std::function<void()> at_end)
      : StringSource(std::move(bytes)), at_end_(std::move(at_end)) {}
  std::size_t read(std::span<std::byte> into) override {
    const std::size_t n = StringSource::read(into);
    if (n == 0) at_end_();
    return n;
  }

 private:
  std::function<void()> at_end_;
};

TEST_F(SnapshotFaults, ASourceThatDiesIsTheErrorAndNothingElse) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, 3 * kSegment, 5 * kSegment + 1}) {
    store.reset();
    DyingSource source(page_bytes(size, 2),
                       [] { throw Error(Code::internal, "mariadb-backup: exit status 1", "look"); });
    const Error error = error_of([&] { write_from(source); });
    EXPECT_EQ(error.code(), Code::internal);
    EXPECT_STREQ(error.what(), "mariadb-backup: exit status 1");
    EXPECT_EQ(error.hint(), "look");
    expect_nothing_but_segments();
  }
}

TEST_F(SnapshotFaults, ASourceThatDiesDoesNotWaitForAHangingStore) {
  Gate gate;
  store.wait = [&](const std::string& verb, const std::string& name, std::stop_token stop) {
    if (is_put_of_segment(verb, name)) gate.pass(stop);
  };
  DyingSource source(page_bytes(2 * kSegment, 3), [&] {
    gate.await_waiting(2);
    throw Error(Code::internal, "the tool died");
  });
  EXPECT_STREQ(error_of([&] { write_from(source); }).what(), "the tool died");
  expect_nothing_but_segments();
}

TEST_F(SnapshotFaults, CancelledWhileTheStoreHangs) {
  Gate gate;
  store.wait = [&](const std::string& verb, const std::string& name, std::stop_token stop) {
    if (is_put_of_segment(verb, name)) gate.pass(stop);
  };
  std::jthread canceller([&] {
    gate.await_waiting(settings.transfers);
    job.cancel();
  });
  const Error error = error_of([&] { write(random_bytes(200 * kSegment, 4)); });
  EXPECT_EQ(error.code(), Code::cancelled);
  expect_nothing_but_segments();
}

TEST_F(SnapshotFaults, CancelledWhileSegmentsWaitOnDisk) {
  Gate gate;
  store.wait = [&](const std::string& verb, const std::string& name, std::stop_token stop) {
    if (is_put_of_segment(verb, name)) gate.pass(stop);
  };
  std::jthread canceller([&] {
    await_spilled(5);
    job.cancel();
  });
  EXPECT_EQ(code_of([&] { write(random_bytes(200 * kSegment, 5)); }), "CANCELLED");
  expect_nothing_but_segments();
}

TEST_F(SnapshotFaults, CancelledBeforeTheManifest) {
  store.after = [&](const std::string& verb, const std::string&) {
    if (verb == "join") job.cancel();
  };
  EXPECT_EQ(code_of([&] { write(random_bytes(3 * kSegment, 6)); }), "CANCELLED");
  EXPECT_FALSE(store.has("snap/manifest.json"));
}

TEST_F(SnapshotFaults, AStoreSlowerThanTheSourceDoesNotHoldItUp) {
  Gate gate;
  store.wait = [&](const std::string& verb, const std::string& name, std::stop_token stop) {
    if (is_put_of_segment(verb, name)) gate.pass(stop);
  };
  // The store takes nothing at all until the source has been read to its end.
  DyingSource source(random_bytes(60 * kSegment, 7), [&] {
    EXPECT_GT(spilled_files(), 30U);
    EXPECT_EQ(fs::status(spill_dir()).permissions(), fs::perms::owner_all);
    gate.open();
  });
  write_from(source);
  EXPECT_TRUE(spill_is_gone());
  store.wait = nullptr;
  EXPECT_EQ(read(store), random_bytes(60 * kSegment, 7));
  EXPECT_THAT(job.warnings(), IsEmpty());
}

TEST_F(SnapshotFaults, TheSpillKeepsItsBound) {
  settings.compression = "none";
  settings.spill.max_bytes = 10 * kSegment + 5;
  Gate gate;
  std::atomic<bool> opened = false;
  store.wait = [&](const std::string& verb, const std::string& name, std::stop_token stop) {
    if (!is_put_of_segment(verb, name)) return;
    gate.pass(stop);
    EXPECT_LE(tree_bytes(settings.spill.dir), settings.spill.max_bytes);
  };
  std::jthread opener([&] {
    await_spilled(10);
    // The source is held up now; a bound that did not hold would show as more files.
    std::this_thread::sleep_for(Millis(100));
    EXPECT_EQ(spilled_files(), 10U);
    opened = true;
    gate.open();
  });
  DyingSource source(random_bytes(200 * kSegment, 8), [&] { EXPECT_TRUE(opened) << "the source was not held up"; });
  write_from(source);
  EXPECT_TRUE(spill_is_gone());
  store.wait = nullptr;
  EXPECT_EQ(read(store), random_bytes(200 * kSegment, 8));
}

TEST_F(SnapshotFaults, TheSpillLeavesTheFreeSpaceThatItMust) {
  settings.spill.keep_free_bytes = std::uint64_t{1} << 60;
  Gate gate;
  store.wait = [&](const std::string& verb, const std::string& name, std::stop_token stop) {
    if (is_put_of_segment(verb, name)) gate.pass(stop);
  };
  std::jthread opener([&] {
    gate.await_waiting(settings.transfers);
    while (!fs::exists(spill_dir())) std::this_thread::sleep_for(Millis(1));
    gate.open();
  });
  write(random_bytes(100 * kSegment, 9));
  EXPECT_TRUE(spill_is_gone());
  store.wait = nullptr;
  EXPECT_EQ(read(store), random_bytes(100 * kSegment, 9));
}

TEST_F(SnapshotFaults, ADiskThatRefusesTheSpillIsAWarningAndBackPressure) {
  write_file_atomic(job.dir() / "a-file", "not a directory");
  settings.spill.dir = job.dir() / "a-file";
  Gate gate;
  store.wait = [&](const std::string& verb, const std::string& name, std::stop_token stop) {
    if (is_put_of_segment(verb, name)) gate.pass(stop);
  };
  std::jthread opener([&] {
    while (job.warnings().empty()) std::this_thread::sleep_for(Millis(1));
    gate.open();
  });
  write(random_bytes(100 * kSegment, 10));
  EXPECT_EQ(job.warnings().size(), 1U);
  EXPECT_THAT(job.warnings().front(), HasSubstr("a-file"));
  store.wait = nullptr;
  EXPECT_EQ(read(store), random_bytes(100 * kSegment, 10));
}

TEST_F(SnapshotFaults, ASpilledSegmentThatTheDiskChangedIsNoSuccess) {
  Gate gate;
  store.wait = [&](const std::string& verb, const std::string& name, std::stop_token stop) {
    if (is_put_of_segment(verb, name)) gate.pass(stop);
  };
  DyingSource source(random_bytes(60 * kSegment, 11), [&] {
    const fs::path victim = *fs::directory_iterator(spill_dir());
    std::string bytes = read_file(victim);
    bytes[100] = static_cast<char>(bytes[100] ^ 1);
    write_file_atomic(victim, bytes, 0600);
    gate.open();
  });
  EXPECT_EQ(code_of([&] { write_from(source); }), "DATA_LOSS");
  expect_nothing_but_segments();
}

TEST_F(SnapshotFaults, ADeadJobsSpillIsReplaced) {
  make_dir(spill_dir(), 0700);
  write_file_atomic(spill_dir() / "1", "of a dead process", 0600);
  Gate gate;
  store.wait = [&](const std::string& verb, const std::string& name, std::stop_token stop) {
    if (is_put_of_segment(verb, name)) gate.pass(stop);
  };
  DyingSource source(random_bytes(60 * kSegment, 12), [&] { gate.open(); });
  write_from(source);
  EXPECT_TRUE(spill_is_gone());
  store.wait = nullptr;
  EXPECT_EQ(read(store), random_bytes(60 * kSegment, 12));
}

TEST_F(SnapshotFaults, TheFirstSegmentMayEndLast) {
  settings.segment_bytes = 100;
  std::atomic<int> ended = 0;
  Gate gate;
  store.wait = [&](const std::string& verb, const std::string& name, std::stop_token stop) {
    if (verb == "put" && name == "snap/segment-00000001") gate.pass(stop);
  };
  store.after = [&](const std::string& verb, const std::string& name) {
    if (is_put_of_segment(verb, name) && ++ended == 2499) gate.open();
  };
  const std::string bytes = page_bytes(2500 * 100, 13);
  const SnapshotSummary summary = write(bytes);
  EXPECT_EQ(summary.manifest.indexes.size(), 3U);
  EXPECT_EQ(read(store), bytes);
}

TEST_F(SnapshotFaults, ReadingWhenSegmentsArriveInAnyOrder) {
  const std::string bytes = page_bytes(30 * kSegment, 14);
  write(bytes);
  Gate gate;
  std::atomic<int> others = 0;
  store.wait = [&](const std::string& verb, const std::string& name, std::stop_token stop) {
    if (verb == "get" && name == "snap/segment-00000001") gate.pass(stop);
  };
  store.after = [&](const std::string& verb, const std::string& name) {
    if (verb == "get" && name != "snap/segment-00000001" && ++others == 5) gate.open();
  };
  EXPECT_EQ(read(store), bytes);
}

TEST_F(SnapshotFaults, AReaderFetchesNoMoreThanItHasMemoryFor) {
  settings.memory_limit = std::uint64_t{45} << 20;
  settings.transfers = 8;
  settings.segment_bytes = kChunkBytes;
  write(random_bytes(60 * kChunkBytes, 15));
  std::atomic<unsigned> gets = 0;
  store.before = [&](const std::string& verb, const std::string& name) {
    if (verb == "get" && name.find("segment-") != std::string::npos) ++gets;
  };
  {
    SnapshotReader reader(store, store.href("snap/manifest.json"), settings, throttle, job);
    std::byte first;
    reader.read({&first, 1});
    std::this_thread::sleep_for(Millis(100));
  }
  const MemoryPlan plan = plan_reading(settings, Codec::zstd, kChunkBytes);
  EXPECT_GE(gets, 2U);
  EXPECT_LE(gets, plan.for_segments / kChunkBytes);
}

TEST_F(SnapshotFaults, AGetThatFailsFailsTheStreamForGood) {
  const std::string bytes = page_bytes(9 * kSegment, 16);
  write(bytes);
  for (int failing = 1; failing <= 11; ++failing) {
    std::atomic<int> calls = 0;
    store.before = [&](const std::string& verb, const std::string&) {
      if (verb == "get" && ++calls == failing) throw unavailable();
    };
    const auto read_all = [&] {
      SnapshotReader reader(store, store.href("snap/manifest.json"), settings, throttle, job);
      std::vector<std::byte> part(4096);
      try {
        while (reader.read(part) > 0) {
        }
      } catch (const Error&) {
        reader.read(part);  // throws again: an error does not become an end
      }
    };
    const Error error = error_of(read_all);
    EXPECT_EQ(error.code(), Code::unavailable) << failing;
    EXPECT_THAT(error.what(), HasSubstr("reading snapshot snap")) << failing;
  }
}

TEST_F(SnapshotFaults, ASegmentThatTheWaySpoiledIsFetchedOnceMore) {
  const std::string bytes = page_bytes(9 * kSegment, 18);
  write(bytes);
  for (const char* change : {"flipped", "cut"}) {
    std::map<std::string, int> asked;
    std::mutex mutex;
    store.on_get = [&](const std::string& name, std::string& body) {
      const std::lock_guard lock(mutex);
      if (name.find("segment-") == std::string::npos || ++asked[name] > 1) return;
      if (change == std::string_view("cut")) {
        body.pop_back();
      } else {
        body[5] = static_cast<char>(body[5] ^ 1);
      }
    };
    EXPECT_EQ(read(store), bytes);
    EXPECT_EQ(asked.size(), 9U);
    for (const auto& [name, times] : asked) EXPECT_EQ(times, 2) << name;
  }
}

TEST_F(SnapshotFaults, ReadingIsCancelledWhileTheStoreHangs) {
  write(page_bytes(9 * kSegment, 17));
  Gate gate;
  store.wait = [&](const std::string& verb, const std::string& name, std::stop_token stop) {
    if (verb == "get" && name == "snap/segment-00000003") gate.pass(stop);
  };
  std::jthread canceller([&] {
    gate.await_waiting(1);
    job.cancel();
  });
  EXPECT_EQ(code_of([&] { read(store, "snap", job); }), "CANCELLED");
}

}  // namespace
}  // namespace guestagent

// Two hosts and one store: who makes a snapshot of an id at the same time as another, or where another's remains are.
// On every store.
#include <barrier>
#include <mutex>
#include <thread>

#include "object_store_suite.h"
#include "storage/snapshot_journal.h"
#include "storage/snapshot_reader.h"
#include "storage/snapshot_writer.h"
#include "storage/snapshots.h"
#include "support/bytes.h"
#include "support/test_job.h"

namespace guestagent {
namespace {

// One host's part in making one snapshot.
struct SnapshotMaker {
  SnapshotMaker(std::string own, unsigned seed) : host(std::move(own)), bytes(test::page_bytes(45000, seed)) {
    settings.segment_bytes = 10000;
    settings.workers = 1;
    settings.transfers = 2;
    settings.spill.dir = job.dir() / "spill";
  }
  // "" for a success, else the code and the message.
  std::string make(ObjectStore& store, const std::string& id) {
    try {
      test::StringSource source(bytes);
      SnapshotWriter writer(store, id, settings, throttle, job, host);
      writer.write(source, bytes.size());
      digest = writer.finish({"tool", "xbstream", "{}", {}}).manifest.digest;
      return "";
    } catch (const Error& e) {
      return std::string(code_row(e.code()).wire) + ": " + e.what();
    }
  }
  // What the agent does after a failure, and after a crash when it is started again.
  void undo(ObjectStore& store) {
    const Journal::Step* found = job.journal().find(kObjectsStep);
    if (found == nullptr) return;
    undo_snapshot(store, read_objects_step(found->data), {});
  }
  std::string read(ObjectStore& store, const std::string& id) {
    test::TestJob reading;
    SnapshotReader reader(store, store.href(id + "/manifest.json"), settings, throttle, reading);
    EXPECT_EQ(reader.manifest().digest, digest);
    std::string out;
    std::vector<std::byte> part(4096);
    while (const std::size_t n = reader.read(part)) out.append(reinterpret_cast<const char*>(part.data()), n);
    return out;
  }

  const std::string host;
  const std::string bytes;
  test::TestJob job;
  SnapshotSettings settings;
  Throttle throttle;
  std::string digest;
};

std::vector<std::string> all_names(ObjectStore& store) {
  std::vector<std::string> out;
  store.list("", [&](const ObjectInfo& info) { out.push_back(info.name); }, {});
  return out;
}

}  // namespace

TEST_P(ObjectStoreContract, OfTwoMakersAtOnceOneSucceedsAtMostAndItsSnapshotIsWhole) {
  constexpr unsigned kRounds = 8;
  for (unsigned round = 0; round < kRounds; ++round) {
    const std::string id = "monday-" + std::to_string(round);
    SnapshotMaker makers[] = {{"192.0.2.1", 2 * round + 1}, {"192.0.2.2", 2 * round + 2}};
    std::string failures[2];
    std::barrier start(2);
    {
      std::vector<std::jthread> threads;
      for (unsigned m = 0; m < 2; ++m) {
        threads.emplace_back([&, m] {
          start.arrive_and_wait();
          failures[m] = makers[m].make(store(), id);
          if (!failures[m].empty()) makers[m].undo(store());
        });
      }
    }
    unsigned successes = 0;
    for (unsigned m = 0; m < 2; ++m) {
      SCOPED_TRACE(failures[0] + " | " + failures[1]);
      if (failures[m].empty()) {
        ++successes;
        EXPECT_EQ(makers[m].read(store(), id), makers[m].bytes);
      } else {
        // Where the store is not sure, both may give up, and one may find that its claim went with the other's.
        EXPECT_TRUE(failures[m].starts_with("ALREADY_EXISTS: ") ||
                    (!store().promises_new() &&
                     (failures[m].starts_with("FAILED_PRECONDITION: ") || failures[m].starts_with("UNAVAILABLE: "))));
      }
    }
    EXPECT_LE(successes, 1U);
    if (store().promises_new()) {
      EXPECT_EQ(successes, 1U);
    }
    EXPECT_GE(delete_snapshot(store(), id, {}), successes);
    EXPECT_TRUE(all_names(store()).empty());
  }
}

TEST_P(ObjectStoreContract, ADeadMakersAgentThatComesBackLeavesAnothersSnapshotAlone) {
  for (const bool had_stored : {false, true}) {
    SnapshotMaker dead("192.0.2.1", 1), next("192.0.2.2", 2);
    {
      SnapshotWriter writer(store(), "monday", dead.settings, dead.throttle, dead.job, dead.host);
      writer.claim();
      test::StringSource source(dead.bytes);
      if (had_stored) writer.write(source, dead.bytes.size());
    }
    const std::string refused = next.make(store(), "monday");
    EXPECT_TRUE(refused.starts_with("ALREADY_EXISTS: ")) << refused;
    EXPECT_NE(refused.find("being made by 192.0.2.1 since 20"), std::string::npos) << refused;
    const Deletion deletion = plan_deletion(store(), "monday", "192.0.2.2", {});
    ASSERT_TRUE(deletion.found);
    EXPECT_EQ(deletion.found->host, "192.0.2.1");
    const std::size_t remains = all_names(store()).size();
    EXPECT_GE(remains, had_stored ? 6U : 1U) << "five segments and a claim";
    EXPECT_EQ(delete_snapshot(store(), deletion, {}), remains);
    ASSERT_EQ(next.make(store(), "monday"), "");
    dead.undo(store());
    EXPECT_EQ(next.read(store(), "monday"), next.bytes);
    delete_snapshot(store(), "monday", {});
    EXPECT_TRUE(all_names(store()).empty());
  }
}

TEST_P(ObjectStoreContract, ItsOwnRemainsAreRemoved) {
  SnapshotMaker dead("192.0.2.1", 1);
  {
    SnapshotWriter writer(store(), "monday", dead.settings, dead.throttle, dead.job, dead.host);
    test::StringSource source(dead.bytes);
    writer.write(source, dead.bytes.size());
  }
  EXPECT_GT(all_names(store()).size(), 5U);
  dead.undo(store());
  EXPECT_TRUE(all_names(store()).empty());
}

}  // namespace guestagent

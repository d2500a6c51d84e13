// Who a snapshot belongs to, on stores that keep "only where nothing is", keep it nearly, and do not know it.
#include "storage/claim.h"

#include <gmock/gmock.h>

#include <barrier>
#include <thread>

#include "storage/snapshot_journal.h"
#include "tests/support/fake_clock.h"
#include "tests/support/snapshot_fixture.h"

namespace guestagent {
namespace {

using test::code_of;
using test::error_of;
using test::MemoryStore;
using test::page_bytes;
using test::StringSource;
using test::TestJob;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class Claims : public test::SnapshotFixture {
 protected:
  Claims() { settings.segment_bytes = kSegment; }

  ObjectsStep journaled(TestJob& of) { return read_objects_step(of.journal().find(kObjectsStep)->data); }
  Undone undo(TestJob& of) { return undo_snapshot(store, journaled(of), {}); }
  // As a host of its own would, from its first request to its last.
  SnapshotSummary make(TestJob& of, const std::string& bytes, const std::string& host, const std::string& id = "snap") {
    StringSource source(bytes);
    SnapshotWriter writer(store, id, settings, throttle, of, host);
    writer.write(source, bytes.size());
    return writer.finish(facts());
  }
  Claim claim_of(const std::string& id = "snap") { return read_claim(store, id, {}).value_or(Claim{}); }
};

constexpr MemoryStore::Condition kConditions[] = {MemoryStore::Condition::sure, MemoryStore::Condition::racy,
                                                  MemoryStore::Condition::ignored};

TEST_F(Claims, TheClaimIsTheFirstObjectAndNamesItsMaker) {
  std::vector<std::string> put;
  std::mutex mutex;
  store.after = [&](const std::string& verb, const std::string& name) {
    const std::lock_guard lock(mutex);
    if (verb == "put") put.push_back(name);
  };
  make(job, page_bytes(3 * kSegment, 1), "192.0.2.1");
  EXPECT_EQ(put.front(), "snap/claim.json");
  EXPECT_EQ(put.back(), "snap/manifest.json");
  EXPECT_EQ(claim_of().host, "192.0.2.1");
  EXPECT_EQ(claim_of().token, journaled(job).token);
  EXPECT_EQ(claim_of().token.size(), 32U);
  EXPECT_TRUE(journaled(job).claimed);
  EXPECT_EQ(journaled(job).href, store.href("snap/manifest.json"));
  TestJob other;
  make(other, page_bytes(3 * kSegment, 1), "192.0.2.1", "other");
  EXPECT_NE(claim_of("other").token, claim_of().token);
}

TEST_F(Claims, WhereAStoreIsNotSureASecondObjectTellsAndGoes) {
  store.condition = MemoryStore::Condition::racy;
  std::vector<std::string> seen;
  StringSource source(page_bytes(3 * kSegment, 1));
  SnapshotWriter writer(store, "snap", settings, throttle, job, "192.0.2.1");
  writer.claim();
  EXPECT_EQ(store.names().size(), 2U);
  EXPECT_THAT(store.names(), testing::Contains("snap/claim-" + claim_of().token));
  writer.write(source, {});
  writer.finish(facts());
  EXPECT_THAT(store.names(), Not(testing::Contains(HasSubstr("claim-"))));
}

// Both have looked, and found nothing; then both store.
TEST_F(Claims, TwoAtTheSameInstantAreOneAtMost) {
  for (const auto condition : kConditions) {
    for (int round = 0; round < 15; ++round) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(condition) << ", round " << round);
      store.reset();
      store.condition = condition;
      std::atomic<int> waiting = 2;
      // They look at the same instant, and store at the same instant: the claim, at least.
      const auto meet = [&](const std::string& name) {
        if (name != "snap/claim.json") return;
        --waiting;
        for (int i = 0; i < 200 && waiting > 0; ++i) std::this_thread::sleep_for(std::chrono::microseconds(100));
      };
      store.between = meet;
      if (condition != MemoryStore::Condition::racy)
        store.before = [&](const std::string& verb, const std::string& name) {
          if (verb == "put") meet(name);
        };
      const std::string bytes[2] = {page_bytes(4 * kSegment, 1), page_bytes(4 * kSegment, 2)};
      std::optional<Error> errors[2];
      std::string digests[2];
      TestJob jobs[2];
      {
        std::vector<std::jthread> threads;
        for (unsigned m = 0; m < 2; ++m) {
          threads.emplace_back([&, m] {
            try {
              digests[m] = make(jobs[m], bytes[m], "host-" + std::to_string(m)).manifest.digest;
            } catch (const Error& e) {
              errors[m] = e;
            }
            if (errors[m]) undo(jobs[m]);
          });
        }
      }
      store.before = nullptr;
      ASSERT_TRUE(errors[0] || errors[1]) << "two successes";
      if (errors[0] && errors[1]) {
        // Where a store puts what it was told not to, a second maker can take the claim away under the first and then
        // give up: what the first had stored is left, since it was another's by then. It is no snapshot, and goes on
        // request.
        EXPECT_NE(condition, MemoryStore::Condition::sure);
        EXPECT_FALSE(store.has("snap/manifest.json"));
        delete_snapshot(store, "snap", {});
        EXPECT_THAT(store.names(), IsEmpty());
        continue;
      }
      const unsigned winner = errors[0] ? 1 : 0;
      EXPECT_EQ(errors[1 - winner]->code(), Code::already_exists) << errors[1 - winner]->what();
      EXPECT_THAT(errors[1 - winner]->what(),
                  HasSubstr(condition == MemoryStore::Condition::sure ? "host-" + std::to_string(winner) + " since 20"
                                                                      : "has that id already"));
      EXPECT_EQ(read(store), bytes[winner]);
    }
  }
}

// A store that shows the other's objects too late: what can still be known is known.
TEST_F(Claims, OnAStoreThatListsTooLateThereIsNoMixture) {
  for (const auto condition : {MemoryStore::Condition::racy, MemoryStore::Condition::sure}) {
    for (int round = 0; round < 8; ++round) {
      store.reset();
      store.condition = condition;
      for (unsigned n = 1; n < 6; ++n) store.hide_from_listing("snap/" + segment_name(n));
      store.hide_from_listing("snap/claim.json");
      std::barrier meet(2);
      std::atomic<int> met = 0;
      store.between = [&](const std::string& name) {
        if (name == "snap/claim.json" && ++met <= 2) meet.arrive_and_wait();
      };
      store.after = [&](const std::string& verb, const std::string& name) {
        if (verb == "put" && name.starts_with("snap/claim-")) store.hide_from_listing(name);
      };
      const std::string bytes[2] = {page_bytes(5 * kSegment, 1), page_bytes(5 * kSegment, 2)};
      std::optional<Error> errors[2];
      TestJob jobs[2];
      {
        std::vector<std::jthread> threads;
        for (unsigned m = 0; m < 2; ++m) {
          threads.emplace_back([&, m] {
            try {
              make(jobs[m], bytes[m], "host-" + std::to_string(m));
            } catch (const Error& e) {
              errors[m] = e;
            }
          });
        }
      }
      ASSERT_TRUE(errors[0] || errors[1]) << "two successes";
      for (unsigned m = 0; m < 2; ++m) {
        if (!errors[m]) {
          EXPECT_EQ(read(store), bytes[m]);
        }
      }
    }
  }
}

TEST_F(Claims, WhoComesSecondIsToldWhoWasFirst) {
  for (const auto condition : kConditions) {
    store.reset();
    store.condition = condition;
    TestJob first, second;
    SnapshotWriter dead(store, "snap", settings, throttle, first, "192.0.2.1");
    dead.claim();
    const auto before = store.objects();
    const Error taken = error_of([&] { make(second, page_bytes(kSegment, 2), "192.0.2.2"); });
    EXPECT_EQ(taken.code(), Code::already_exists);
    EXPECT_THAT(taken.what(), HasSubstr("it is being made by 192.0.2.1 since 20"));
    EXPECT_THAT(taken.hint(),
                HasSubstr(R"(delete_replication_snapshot '{"snapshot_href": "memory://snap/manifest.json"}')"));
    EXPECT_EQ(store.objects(), before);
    StringSource source(page_bytes(3 * kSegment, 1));
    dead.write(source, {});
    dead.finish(facts());
    EXPECT_THAT(error_of([&] { make(second, page_bytes(kSegment, 2), "192.0.2.2"); }).what(),
                HasSubstr("a complete snapshot of 192.0.2.1 since 20"));
    EXPECT_EQ(read(store), page_bytes(3 * kSegment, 1));
  }
}

TEST_F(Claims, WhoHasLookedAndComesLateIsRefusedAndTouchesNothing) {
  for (const auto condition : kConditions) {
    store.reset();
    store.condition = condition;
    TestJob first, second;
    // Both have looked; a clone takes an hour in between.
    SnapshotWriter late(store, "snap", settings, throttle, first, "192.0.2.1");
    make(second, page_bytes(3 * kSegment, 2), "192.0.2.2");
    const auto before = store.objects();
    StringSource source(page_bytes(3 * kSegment, 1));
    EXPECT_EQ(code_of([&] { late.write(source, {}); }), "ALREADY_EXISTS");
    if (first.journal().find(kObjectsStep) != nullptr) {
      EXPECT_EQ(undo(first).objects, 0U);
    }
    EXPECT_EQ(store.objects(), before);
  }
}

TEST_F(Claims, ASleeperThatWakesUpReplacesNothing) {
  TestJob sleeper, next;
  SnapshotWriter asleep(store, "snap", settings, throttle, sleeper, "192.0.2.1");
  asleep.claim();
  delete_snapshot(store, "snap", {});
  make(next, page_bytes(3 * kSegment, 2), "192.0.2.2");
  const auto before = store.objects();
  StringSource source(page_bytes(5 * kSegment, 1));
  const Error error = error_of([&] { asleep.write(source, {}); });
  EXPECT_EQ(error.code(), Code::failed_precondition);
  EXPECT_THAT(error.what(), HasSubstr("taken meanwhile by 192.0.2.2 since 20"));
  const Undone undone = undo(sleeper);
  ASSERT_TRUE(undone.of_another);
  EXPECT_EQ(undone.of_another->host, "192.0.2.2");
  for (const auto& [name, body] : before) EXPECT_EQ(store.text(name), body);
  EXPECT_EQ(read(store), page_bytes(3 * kSegment, 2));
}

// At whichever of the maker's requests somebody deletes the snapshot: no success that is none, and nothing is left when
// both have ended.
TEST_F(Claims, AMakerWhoseSnapshotIsDeletedFails) {
  const std::string bytes = page_bytes(4 * kSegment, 1);
  settings.transfers = 1;
  std::atomic<bool> deleting = false;
  // Calls `then` after the maker's request number `at` from its claim on; answers how many there were.
  const auto make_and_at = [&](TestJob& making, int at, const std::function<void()>& then,
                               std::optional<Error>& error) {
    std::atomic<int> requests = 0;
    store.after = [&](const std::string&, const std::string&) {
      if (deleting || (requests == 0 && !store.has("snap/claim.json"))) return;
      if (++requests != at) return;
      deleting = true;
      then();
      deleting = false;
    };
    try {
      make(making, bytes, "192.0.2.1");
    } catch (const Error& e) {
      error = e;
    }
    store.after = nullptr;
    return requests.load();
  };
  TestJob undisturbed;
  std::optional<Error> none;
  const int total = make_and_at(
      undisturbed, 0, [] {}, none);
  ASSERT_FALSE(none) << none->what();
  ASSERT_GE(total, 10)
      << "the claim and a look, four segments, an index, the joined stream, a look, the manifest, a look";
  for (int at = 1; at <= total; ++at) {
    for (const bool full_store : {false, true}) {
      SCOPED_TRACE(testing::Message() << "after request " << at << " of " << total
                                      << (full_store ? ", store full" : ""));
      store.reset();
      store.before = [&](const std::string& verb, const std::string&) {
        if (full_store && deleting && verb == "put") throw StoreError(Code::resource_exhausted, "full", "", false);
      };
      TestJob making;
      std::optional<Error> error;
      make_and_at(
          making, at, [&] { delete_snapshot(store, "snap", {}); }, error);
      EXPECT_EQ(error.has_value(), at < total) << (error ? error->what() : "a success that is none");
      if (error) {
        // Before it has seen its own claim it cannot tell a deletion from a store that loses what it confirms.
        EXPECT_EQ(error->code(), at == 1 ? Code::unavailable : Code::failed_precondition) << error->what();
        EXPECT_THAT(error->what(),
                    HasSubstr(at == 1 ? "its claim was stored, and is not there" : "deleted while it was made"));
        undo(making);
      }
      EXPECT_THAT(store.names(), IsEmpty());
    }
  }
}

TEST_F(Claims, UndoRemovesWhatIsItsOwnAndNothingElse) {
  struct Case {
    const char* what;
    std::function<void(MemoryStore&, const std::string& token)> then;
    bool claimed;
    bool all_goes;
  };
  const auto foreign = [](const std::string& token) {
    return write_claim({token, "192.0.2.2", "2026-01-31T23:59:59Z", ""});
  };
  const Case cases[] = {
      {"its own", [](auto&, auto&) {}, true, true},
      {"its own, finished but for the answer", [](auto& s, auto&) { s.set("snap/manifest.json", "{}"); }, true, true},
      {"somebody else's claim", [&](auto& s, auto&) { s.set("snap/claim.json", foreign("another")); }, true, false},
      {"an unreadable claim", [](auto& s, auto&) { s.set("snap/claim.json", "\xff{"); }, true, false},
      {"an empty claim", [](auto& s, auto&) { s.set("snap/claim.json", ""); }, true, false},
      {"a claim without a token", [&](auto& s, auto&) { s.set("snap/claim.json", foreign("")); }, true, false},
      {"a huge claim", [](auto& s, auto&) { s.set("snap/claim.json", std::string(1 << 20, 'x')); }, true, false},
      {"deleted, and what was under way came later", [](auto& s, auto&) { s.erase("snap/claim.json"); }, true, true},
      {"deleted, and made by an agent without claims",
       [](auto& s, auto&) {
         s.erase("snap/claim.json");
         s.set("snap/manifest.json", "{}");
       },
       true, false},
      {"deleted, and its own manifest came later",
       [](auto& s, auto&) {
         s.erase("snap/claim.json");
         s.set("snap/manifest.json", "its own manifest");
       },
       true, true},
      {"never sure of its claim", [](auto& s, auto&) { s.erase("snap/claim.json"); }, false, false},
      {"never sure, and somebody else's", [&](auto& s, auto&) { s.set("snap/claim.json", foreign("another")); }, false,
       false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    store.reset();
    TestJob dead;
    StringSource source(page_bytes(3 * kSegment, 1));
    {
      SnapshotWriter writer(store, "snap", settings, throttle, dead, "192.0.2.1");
      writer.write(source, {});
    }
    store.set("snap2/segment-00000001", "a neighbour");
    ObjectsStep step = journaled(dead);
    step.claimed = c.claimed;
    step.manifest_sha256 = sha256_hex(as_bytes("its own manifest"));
    c.then(store, step.token);
    auto before = store.objects();
    undo_snapshot(store, step, {});
    if (c.all_goes) {
      EXPECT_THAT(store.names(), ElementsAre("snap2/segment-00000001"));
    } else {
      EXPECT_EQ(store.objects(), before);
    }
  }
}

TEST_F(Claims, RemainsOfAnAgentWithoutClaimsAreUndoneAsBefore) {
  store.set("snap/segment-00000001", "half");
  ObjectsStep old;
  old.snapshot_id = "snap";
  EXPECT_EQ(undo_snapshot(store, old, {}).objects, 1U);
  EXPECT_THAT(store.names(), IsEmpty());
  store.set("snap/segment-00000001", "whole");
  store.set("snap/manifest.json", "{}");
  EXPECT_TRUE(undo_snapshot(store, old, {}).of_another);
  EXPECT_EQ(store.names().size(), 2U);
}

TEST_F(Claims, ADeletionThatDiedGoesOnButNotWithANewerSnapshot) {
  make(job, page_bytes(3 * kSegment, 1), "192.0.2.1");
  const Deletion deletion = plan_deletion(store, "snap", "192.0.2.9", {});
  ASSERT_TRUE(deletion.found);
  EXPECT_EQ(deletion.found->host, "192.0.2.1");
  // It dies at each of its requests, and goes on.
  for (int at = 1;; ++at) {
    auto half = store.copy();
    std::atomic<int> requests = 0;
    half->before = [&](const std::string&, const std::string&) {
      if (++requests >= at) throw StoreError(Code::unavailable, "died", "", false);
    };
    bool died = false;
    try {
      delete_snapshot(*half, deletion, {});
    } catch (const Error&) {
      died = true;
    }
    half->before = nullptr;
    if (!died) break;
    // What a crash leaves is finished …
    auto goes_on = half->copy();
    EXPECT_FALSE(finish_deletion(*goes_on, deletion, {}).of_another) << at;
    EXPECT_THAT(goes_on->names(), IsEmpty()) << at;
    // … but not where another has taken the id since.
    auto newer = half->copy();
    delete_snapshot(*newer, "snap", {});
    TestJob another;
    StringSource source(page_bytes(2 * kSegment, 2));
    SnapshotWriter writer(*newer, "snap", settings, throttle, another, "192.0.2.2");
    writer.write(source, {});
    writer.finish(facts());
    const Undone undone = finish_deletion(*newer, deletion, {});
    ASSERT_TRUE(undone.of_another) << at;
    EXPECT_EQ(undone.of_another->host, "192.0.2.2");
    EXPECT_EQ(read(*newer), page_bytes(2 * kSegment, 2)) << at;
  }
}

TEST_F(Claims, WhileItIsDeletedNobodyTakesTheId) {
  make(job, page_bytes(3 * kSegment, 1), "192.0.2.1");
  std::atomic<int> refused = 0;
  store.before = [&](const std::string& verb, const std::string& name) {
    if (verb != "remove" || (name != "snap/manifest.json" && name != "snap/claim.json")) return;
    TestJob other;
    const Error error = error_of([&] { SnapshotWriter(store, "snap", settings, throttle, other, "192.0.2.2"); });
    EXPECT_THAT(error.what(), HasSubstr("192.0.2.1 since 20")) << name;
    if (name == "snap/claim.json") {
      EXPECT_THAT(error.what(), HasSubstr("192.0.2.9 is deleting it"));
    }
    ++refused;
  };
  delete_snapshot(store, plan_deletion(store, "snap", "192.0.2.9", {}), {});
  EXPECT_EQ(refused, 2);
  EXPECT_THAT(store.names(), IsEmpty());
}

TEST_F(Claims, OldSnapshotsWithoutAClaimAreReadListedAndDeleted) {
  const std::string bytes = page_bytes(3 * kSegment, 1);
  make(job, bytes, "192.0.2.1");
  store.erase("snap/claim.json");
  EXPECT_EQ(read(store), bytes);
  EXPECT_TRUE(list_snapshots(store, {}).at(0).complete);
  TestJob other;
  EXPECT_THAT(error_of([&] { make(other, bytes, "192.0.2.2"); }).what(),
              HasSubstr("somebody whose agent makes no claims"));
  const Deletion deletion = plan_deletion(store, "snap", "192.0.2.9", {});
  EXPECT_FALSE(deletion.found);
  EXPECT_EQ(delete_snapshot(store, deletion, {}), 6U) << "three segments, an index, the joined stream, the manifest";
  EXPECT_THAT(store.names(), IsEmpty());
}

TEST_F(Claims, OneInProgressIsListed) {
  SnapshotWriter writer(store, "snap", settings, throttle, job, "192.0.2.1");
  writer.claim();
  const auto listed = list_snapshots(store, {});
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(listed[0].id, "snap");
  EXPECT_FALSE(listed[0].complete);
}

TEST_F(Claims, AClaimMayBeSeenLate) {
  int looks = 0;
  store.before = [&](const std::string& verb, const std::string& name) {
    // The look before the claim, then the first one after it.
    if (verb == "get" && name == "snap/claim.json" && ++looks == 2)
      throw StoreError(Code::not_found, "not yet", "", false);
  };
  make(job, page_bytes(kSegment, 1), "192.0.2.1");
  EXPECT_EQ(read(store), page_bytes(kSegment, 1));
}

TEST_F(Claims, WhereAStoreHidesTheClaimNothingCountsAsUndone) {
  make(job, page_bytes(kSegment, 1), "192.0.2.1");
  for (const bool claimed : {true, false}) {
    ObjectsStep step = journaled(job);
    step.claimed = claimed;  // false: it died before it knew whether its claim was stored
    if (!claimed) store.set("snap/claim.json", write_claim({step.token, "192.0.2.1", "2026-01-31T23:59:59Z", ""}));
    const std::size_t before = store.names().size();
    store.before = [](const std::string& verb, const std::string& name) {
      if (verb == "get" && name == "snap/claim.json") throw StoreError(Code::not_found, "hidden", "", false);
    };
    const Error error = error_of([&] { undo_snapshot(store, step, {}); });
    EXPECT_EQ(error.code(), Code::unavailable) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("claim.json"));
    EXPECT_EQ(store.names().size(), before) << claimed;
    store.before = nullptr;
    EXPECT_GT(undo_snapshot(store, step, {}).objects, 0U) << "it shows it again";
    EXPECT_THAT(store.names(), IsEmpty()) << claimed;
  }
}

TEST_F(Claims, WhatIsInAClaimIsAnybodys) {
  for (const std::string text :
       {"", "{}", "[]", "nonsense", R"({"token":1})", R"({"token":"x","host":"h","since":"yesterday"})"}) {
    EXPECT_EQ(read_claim_text(text).token, "") << text;
    EXPECT_EQ(holder_of(read_claim_text(text)), "somebody whose claim cannot be read");
  }
  const Claim odd =
      read_claim_text("{\"token\":\"t\",\"host\":\"a\\nb\\u001b[31m\",\"since\":\"2026-01-31T23:59:59Z\",\"more\":1}");
  EXPECT_EQ(odd.token, "t");
  EXPECT_THAT(odd.host, AllOf(Not(HasSubstr("\n")), Not(HasSubstr("\x1b"))));
}

}  // namespace
}  // namespace guestagent

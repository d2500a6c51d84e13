// A snapshot that is followed while it is made.
#include "storage/follower.h"

#include <gmock/gmock.h>

#include <atomic>
#include <deque>

#include "storage/claim.h"
#include "tests/support/fake_clock.h"
#include "tests/support/snapshot_fixture.h"

namespace guestagent {
namespace {

using test::code_of;
using test::error_of;
using test::MemoryStore;
using test::page_bytes;
using test::TestJob;
using testing::HasSubstr;

// `made` is what the source will have stored; `shown` is the store that the follower sees, where it appears bit by bit:
// one step at each time that the follower sleeps.
class FollowerTest : public test::SnapshotFixture {
 protected:
  FollowerTest() {
    settings.transfers = 3;
    clock.on_sleep([this] {
      if (steps.empty()) return;
      steps.front()();
      steps.pop_front();
    });
    shown.before = [this](const std::string& verb, const std::string& name) {
      if (verb == "get" && name.find("segment-") != std::string::npos && shown.has(name)) ++segments_fetched;
    };
  }

  void show(const std::string& name) { shown.set("snap/" + name, store.text("snap/" + name)); }
  void step(std::function<void()> what) { steps.push_back(std::move(what)); }
  // The steps of a source that comes to its end.
  void make(std::size_t segments = 7) {
    bytes = page_bytes(segments * kSegment - 5, 1);
    write(bytes);
    step([] {});
    step([this] { show("claim.json"); });
    for (std::size_t i = 1; i <= segments; ++i) {
      // Not each in its turn: a sender is faster than another.
      const std::size_t number = i % 3 == 0 && i < segments ? i + 1 : i % 3 == 1 && i > 3 ? i - 1 : i;
      step([this, number] { show(segment_name(number)); });
    }
    step([this] {
      for (const std::string& name : store.names()) show(name.substr(5));
    });
  }
  void follow() { follower.wait(); }
  std::string followed() {
    follow();
    return read(follower.store());
  }

  FakeClock clock;
  MemoryStore shown;
  TestJob following;
  std::deque<std::function<void()>> steps;
  std::atomic<int> segments_fetched = 0;
  std::string bytes;
  Follower& follower_of(const SnapshotSettings& with) {
    made_.emplace(shown, "snap", with, throttle, Millis(30000), clock, following);
    return *made_;
  }
  std::optional<Follower> made_;
  // Made with the settings of the fixture's constructor.
  Follower& follower = follower_of(settings);
};

TEST_F(FollowerTest, WhatCameEarlyIsNotFetchedAgain) {
  make();
  follow();
  const int early = segments_fetched;
  EXPECT_GE(early, 6);
  EXPECT_EQ(read(follower.store()), bytes);
  EXPECT_LE(segments_fetched, early + 1) << "the last appeared with the manifest";
  EXPECT_GT(following.done(), 0U);
  made_.reset();
  EXPECT_TRUE(spill_is_gone());
}

TEST_F(FollowerTest, OneThatIsThereAlreadyIsOnlyRead) {
  bytes = page_bytes(3 * kSegment, 2);
  write(bytes);
  for (const std::string& name : store.names()) show(name.substr(5));
  EXPECT_EQ(followed(), bytes);
  EXPECT_TRUE(clock.slept().empty());
}

TEST_F(FollowerTest, WhatCameSpoiledIsFetchedAgain) {
  make();
  shown.on_get = [this](const std::string& name, std::string& body) {
    if (name.find("segment-") != std::string::npos && !shown.has("snap/manifest.json")) body[body.size() / 2] ^= 1;
  };
  EXPECT_EQ(followed(), bytes);
}

TEST_F(FollowerTest, WithoutRoomItOnlyWaits) {
  settings.spill.max_bytes = 2 * kSegment;
  follower_of(settings);
  make();
  EXPECT_EQ(read((made_->wait(), made_->store())), bytes);
  settings.spill.max_bytes = 0;
  follower_of(settings);
  EXPECT_EQ(read((made_->wait(), made_->store())), bytes);
}

TEST_F(FollowerTest, ASourceThatGivesUpEndsIt) {
  make();
  steps.resize(5);
  step([this] {
    for (const std::string& name : shown.names()) shown.erase(name);
  });
  const Error error = error_of([&] { follow(); });
  EXPECT_EQ(error.code(), Code::not_found) << error.what();
  EXPECT_THAT(error.what(), HasSubstr("given it up"));
}

TEST_F(FollowerTest, ADeletionOrAnotherMakerEndsIt) {
  for (const bool deleted : {true, false}) {
    steps.clear();
    shown.reset();
    Claim claim = new_claim("192.0.2.1");
    step([this, claim] { shown.set("snap/claim.json", write_claim(claim)); });
    step([this, claim, deleted]() mutable {
      if (deleted) {
        claim.deleting_host = "192.0.2.2";
      } else {
        claim = new_claim("192.0.2.3");
      }
      shown.set("snap/claim.json", write_claim(claim));
    });
    follower_of(settings);
    const Error error = error_of([&] { made_->wait(); });
    EXPECT_EQ(error.code(), Code::not_found);
    EXPECT_THAT(error.what(), HasSubstr(deleted ? "192.0.2.2" : "192.0.2.3"));
  }
}

TEST_F(FollowerTest, ASilentSourceEndsIt) {
  const Error never = error_of([&] { follow(); });
  EXPECT_EQ(never.code(), Code::deadline_exceeded);
  EXPECT_THAT(never.what(), HasSubstr("nobody has begun it"));
  make();
  steps.resize(6);
  follower_of(settings);
  const Error silent = error_of([&] { made_->wait(); });
  EXPECT_EQ(silent.code(), Code::deadline_exceeded);
  EXPECT_LE(clock.slept().size(), 80U);
}

TEST_F(FollowerTest, AShortAbsenceOfTheClaimIsNone) {
  make();
  steps.insert(steps.begin() + 4, [this] { shown.erase("snap/claim.json"); });
  steps.insert(steps.begin() + 6, [this] { show("claim.json"); });
  EXPECT_EQ(followed(), bytes);
}

TEST_F(FollowerTest, CancelAndTroubleOfTheStoreAreTold) {
  make();
  steps.insert(steps.begin() + 4, [this] { following.cancel(); });
  EXPECT_EQ(code_of([&] { follow(); }), "CANCELLED");
  for (const std::string verb : {"get", "stat"}) {
    TestJob other;
    shown.reset();
    shown.before = [&](const std::string& now, const std::string&) {
      if (now == verb) throw StoreError(Code::permission_denied, "403", "", false);
    };
    Follower refused(shown, "snap", settings, throttle, Millis(30000), clock, other);
    EXPECT_EQ(code_of([&] { refused.wait(); }), "PERMISSION_DENIED") << verb;
  }
}

}  // namespace
}  // namespace guestagent

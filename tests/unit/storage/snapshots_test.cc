// Listing and deleting whole snapshots.
#include "storage/snapshots.h"

#include <gmock/gmock.h>

#include <atomic>

#include "tests/support/fake_clock.h"
#include "tests/support/snapshot_fixture.h"

namespace guestagent {
namespace {

using test::code_of;
using test::error_of;
using test::page_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Snapshots : public test::SnapshotFixture {};

TEST_F(Snapshots, ListsCompleteAndIncompleteOnes) {
  EXPECT_THAT(list_snapshots(store, {}), IsEmpty());
  const SnapshotSummary whole = write(page_bytes(3 * kSegment, 1), "whole");
  write(page_bytes(3 * kSegment, 2), "cut");
  store.erase("cut/manifest.json");
  store.set("stray", "no snapshot");
  store.set("-bad/segment-00000001", "no snapshot either");
  const WallTime old = WallTime(std::chrono::hours(400000));
  store.set_modified("whole/segment-00000002", old);
  const std::vector<SnapshotListing> list = list_snapshots(store, {});
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0].id, "cut");
  EXPECT_FALSE(list[0].complete);
  EXPECT_EQ(list[1].id, "whole");
  EXPECT_TRUE(list[1].complete);
  EXPECT_EQ(list[1].href, whole.href);
  EXPECT_EQ(list[1].created_at, old);
  const std::uint64_t documents = store.text("whole/manifest.json").size() +
                                  store.text("whole/index-000001.json").size() + store.text("whole/claim.json").size();
  EXPECT_EQ(list[1].stored_bytes, whole.manifest.stored_bytes + documents)
      << "the joined stream has no bytes of its own";
}

TEST_F(Snapshots, DeletesTheManifestFirstAndNothingElse) {
  write(page_bytes(3 * kSegment, 3), "one");
  write(page_bytes(3 * kSegment, 4), "one-more");
  const auto others = store.copy();
  std::vector<std::string> removed;
  std::mutex mutex;
  store.before = [&](const std::string& verb, const std::string& name) {
    const std::lock_guard lock(mutex);
    if (verb == "remove") removed.push_back(name);
  };
  EXPECT_EQ(delete_snapshot(store, "one", {}), 7U);
  EXPECT_EQ(removed.front(), "one/manifest.json");
  EXPECT_EQ(removed.back(), "one/claim.json");
  for (const std::string& name : store.names()) EXPECT_THAT(name, HasSubstr("one-more/"));
  EXPECT_EQ(store.names().size(), 7U);
  EXPECT_EQ(delete_snapshot(store, "one", {}), 0U) << "what is gone is deleted";
  EXPECT_EQ(code_of([&] { delete_snapshot(store, "../x", {}); }), "INVALID_ARGUMENT");
}

TEST_F(Snapshots, DeletesWhatTheListingDoesNotTellYet) {
  write(page_bytes(9 * kSegment, 5));
  for (const int n : {2, 3, 9}) store.hide_from_listing("snap/" + segment_name(static_cast<std::uint64_t>(n)));
  store.hide_from_listing("snap/manifest.json");
  EXPECT_EQ(delete_snapshot(store, "snap", {}), 13U);
  EXPECT_THAT(store.names(), IsEmpty());
  store.set("snap/segment-00000001", "of a job that has just died");
  store.hide_from_listing("snap/segment-00000001");
  EXPECT_EQ(delete_snapshot(store, "snap", {}), 1U);
}

TEST_F(Snapshots, WhatCannotBeDeletedIsNamedAndTheRestIsGone) {
  write(page_bytes(9 * kSegment, 6));
  store.before = [](const std::string& verb, const std::string& name) {
    if (verb == "remove" && (name.ends_with("4") || name.ends_with("7"))) {
      throw StoreError(Code::unavailable, "remove: 503", "try later", true);
    }
  };
  const Error error = error_of([&] { delete_snapshot(store, "snap", {}); });
  EXPECT_EQ(error.code(), Code::unavailable);
  EXPECT_THAT(error.what(), HasSubstr("snap/segment-00000004, snap/segment-00000007"));
  EXPECT_THAT(store.names(), ElementsAre("snap/claim.json", "snap/segment-00000004", "snap/segment-00000007"));
  store.before = nullptr;
  EXPECT_EQ(delete_snapshot(store, "snap", {}), 3U);
}

TEST_F(Snapshots, AListingThatStillTellsOfWhatIsGoneIsNoFailure) {
  write(page_bytes(9 * kSegment, 6));
  // As a container's server that has not heard of the deletes yet.
  class Lagging : public test::MemoryStore {
   public:
    void list(std::string_view, const std::function<void(const ObjectInfo&)>& each, std::stop_token) override {
      for (const auto& name : names_then) each({name, 1, {}});
    }
    std::vector<std::string> names_then;
  } lagging;
  for (const auto& [name, body] : store.objects()) lagging.set(name, body);
  lagging.names_then = lagging.names();
  EXPECT_EQ(delete_snapshot(lagging, "snap", {}), lagging.names_then.size());
  EXPECT_THAT(lagging.names(), IsEmpty());
}

TEST_F(Snapshots, WhatComesBackAfterEachDeleteIsNamed) {
  store.set("snap/segment-00000001", "x");
  store.after = [&](const std::string& verb, const std::string& name) {
    if (verb == "remove" && name == "snap/segment-00000001") store.set(name, "again");
  };
  const Error error = error_of([&] { delete_snapshot(store, "snap", {}); });
  EXPECT_EQ(error.code(), Code::unavailable);
  EXPECT_THAT(error.what(), HasSubstr("still has snap/segment-00000001"));
}

TEST_F(Snapshots, AManifestThatStaysKeepsItsSegments) {
  write(page_bytes(3 * kSegment, 7));
  store.before = [](const std::string& verb, const std::string& name) {
    if (verb == "remove" && name.ends_with("manifest.json"))
      throw StoreError(Code::unavailable, "remove: 503", "", true);
  };
  EXPECT_EQ(code_of([&] { delete_snapshot(store, "snap", {}); }), "UNAVAILABLE");
  EXPECT_EQ(read(store), page_bytes(3 * kSegment, 7));
}

TEST_F(Snapshots, AWildSegmentNumberCostsNoMillionRequests) {
  store.set("snap/segment-99999999", "foreign");
  std::atomic<int> requests = 0;
  store.before = [&](const std::string&, const std::string&) { ++requests; };
  EXPECT_EQ(delete_snapshot(store, "snap", {}), 1U);
  EXPECT_LT(requests, 100);
}

}  // namespace
}  // namespace guestagent

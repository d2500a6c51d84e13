#include "object_store_suite.h"

#include <algorithm>
#include <barrier>
#include <mutex>
#include <thread>

#include "stream/digest.h"

namespace guestagent {

Buffer test_bytes(std::size_t size, unsigned seed) {
  Buffer out;
  std::uint64_t state = seed * 0x9E3779B97F4A7C15ULL + 1;
  while (out.size() < size) {
    auto room = out.room();
    room = room.first(std::min<std::size_t>(room.size(), size - out.size()));
    for (auto& byte : room) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      byte = static_cast<std::byte>(state >> 56);
    }
    out.commit(room.size());
  }
  return out;
}

namespace {

constexpr std::uint64_t kAny = std::uint64_t{1} << 30;

std::vector<std::string> names(ObjectStore& store, std::string_view prefix) {
  std::vector<std::string> out;
  store.list(prefix, [&](const ObjectInfo& info) { out.push_back(info.name); }, {});
  return out;
}

template <typename F>
std::optional<Code> code_of(F&& f) {
  try {
    f();
  } catch (const StoreError& e) {
    return e.code();
  }
  return std::nullopt;
}

}  // namespace

void ObjectStoreContract::SetUp() {
  under_test_ = GetParam().make();
}

void ObjectStoreContract::TearDown() {
  if (!under_test_.store) return;
  for (const auto& name : names(store(), "")) store().remove(name, {});
  EXPECT_TRUE(names(store(), "").empty());
}

TEST_P(ObjectStoreContract, GivesBackWhatWasPut) {
  unsigned seed = 0;
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, kChunkBytes - 1, kChunkBytes, kChunkBytes + 1, 5 * kChunkBytes + 7}) {
    const Buffer body = test_bytes(size, ++seed);
    const std::string name = "size/" + std::to_string(size);
    store().put(name, body, {});
    const Buffer back = store().get(name, kAny, {});
    ASSERT_EQ(back.size(), size);
    EXPECT_EQ(sha256_hex(back), sha256_hex(body)) << size;
  }
}

TEST_P(ObjectStoreContract, ReplacesTheWholeObject) {
  store().put("thing", test_bytes(300000, 1), {});
  store().put("thing", Buffer::from("short"), {});
  EXPECT_EQ(store().get("thing", kAny, {}).text(), "short");
  EXPECT_EQ(store().stat("thing", {})->size, 5U);
  EXPECT_EQ(names(store(), ""), std::vector<std::string>{"thing"});
}

TEST_P(ObjectStoreContract, PutsOnlyWhereNothingIs) {
  const Buffer first = test_bytes(2 * kChunkBytes + 3, 1);
  const std::string digest = sha256_hex(first);
  EXPECT_TRUE(store().put_new("new/thing", first, {}).ours);
  EXPECT_EQ(sha256_hex(store().get("new/thing", kAny, {})), digest);
  EXPECT_TRUE(store().put_new("new/thing", first, {}).ours) << "an earlier try of its own, whose answer was lost";
  const Buffer others[] = {test_bytes(first.size(), 2), test_bytes(first.size() - 1, 1),
                           test_bytes(first.size() + 1, 1), Buffer()};
  for (const Buffer& other : others) {
    EXPECT_FALSE(store().put_new("new/thing", other, {}).ours) << other.size();
    EXPECT_EQ(sha256_hex(store().get("new/thing", kAny, {})), digest);
  }
  store().put("new/plain", Buffer::from("there"), {});
  EXPECT_FALSE(store().put_new("new/plain", Buffer::from("other"), {}).ours);
  EXPECT_EQ(store().get("new/plain", kAny, {}).text(), "there");
  EXPECT_TRUE(store().remove("new/thing", {}));
  EXPECT_TRUE(store().put_new("new/thing", others[0], {}).ours);
  EXPECT_EQ(sha256_hex(store().get("new/thing", kAny, {})), sha256_hex(others[0]));
  EXPECT_EQ(names(store(), ""), (std::vector<std::string>{"new/plain", "new/thing"}));
}

TEST_P(ObjectStoreContract, OfManyThatPutNewAtOnceOneIsKept) {
  constexpr unsigned kThreads = 6, kRounds = 12;
  for (unsigned round = 0; round < kRounds; ++round) {
    const std::string name = "race/" + std::to_string(round);
    std::vector<std::string> ours;
    std::mutex mutex;
    std::barrier start(kThreads);
    std::vector<std::jthread> threads;
    for (unsigned t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        const std::string text = "of thread " + std::to_string(t);
        start.arrive_and_wait();
        try {
          if (!store().put_new(name, Buffer::from(text), {}).ours) return;
          const std::lock_guard lock(mutex);
          ours.push_back(text);
        } catch (const Error& e) {
          ADD_FAILURE() << e.what();
        }
      });
    }
    threads.clear();
    ASSERT_FALSE(ours.empty());
    if (store().promises_new()) {
      EXPECT_EQ(ours.size(), 1U);
    }
    EXPECT_NE(std::ranges::find(ours, store().get(name, kAny, {}).text()), ours.end());
  }
}

TEST_P(ObjectStoreContract, TheSameBodyCanBeSentAgain) {
  const Buffer body = test_bytes(2 * kChunkBytes + 3, 4);
  const std::string digest = sha256_hex(body);
  store().put("first", body, {});
  store().put("second", body, {});
  EXPECT_EQ(sha256_hex(store().get("first", kAny, {})), digest);
  EXPECT_EQ(sha256_hex(store().get("second", kAny, {})), digest);
}

TEST_P(ObjectStoreContract, MissingIsNotFound) {
  try {
    store().get("nothing/here", kAny, {});
    FAIL() << "got an object that was never put";
  } catch (const StoreError& e) {
    EXPECT_EQ(e.code(), Code::not_found) << e.what();
    EXPECT_FALSE(e.retryable());
    EXPECT_NE(std::string(e.what()).find("nothing/here"), std::string::npos) << e.what();
  }
  EXPECT_FALSE(store().stat("nothing/here", {}));
  EXPECT_FALSE(store().remove("nothing/here", {}));
  EXPECT_TRUE(names(store(), "nothing").empty());
}

TEST_P(ObjectStoreContract, LargerThanAskedIsRefused) {
  store().put("big", test_bytes(70000, 5), {});
  EXPECT_EQ(code_of([&] { store().get("big", 69999, {}); }), Code::resource_exhausted);
  EXPECT_EQ(store().get("big", 70000, {}).size(), 70000U);
}

TEST_P(ObjectStoreContract, TellsSizeAndTime) {
  store().put("a/b", test_bytes(1234, 6), {});
  const auto info = store().stat("a/b", {});
  ASSERT_TRUE(info);
  EXPECT_EQ(info->name, "a/b");
  EXPECT_EQ(info->size, 1234U);
  const auto age = std::chrono::system_clock::now() - info->modified;
  EXPECT_LT(std::chrono::abs(age), std::chrono::hours(1));
  store().list("a/",
               [&](const ObjectInfo& listed) {
                 EXPECT_EQ(listed.size, 1234U);
                 EXPECT_LT(std::chrono::abs(listed.modified - info->modified), std::chrono::minutes(1));
               },
               {});
}

TEST_P(ObjectStoreContract, ListsByPrefixInOrderOfNames) {
  const std::vector<std::string> all = {"A",     "a",       "a-b",  "a.b/c", "a0", "b/a-1",
                                        "b/a/1", "b/a/2/x", "b/a0", "b2/x",  "z_z"};
  for (auto it = all.rbegin(); it != all.rend(); ++it) store().put(*it, Buffer::from(*it), {});
  std::vector<std::string> sorted = all;
  std::ranges::sort(sorted);
  EXPECT_EQ(names(store(), ""), sorted);
  EXPECT_EQ(names(store(), "b/"), (std::vector<std::string>{"b/a-1", "b/a/1", "b/a/2/x", "b/a0"}));
  EXPECT_EQ(names(store(), "b/a/"), (std::vector<std::string>{"b/a/1", "b/a/2/x"}));
  EXPECT_EQ(names(store(), "b/a"), (std::vector<std::string>{"b/a-1", "b/a/1", "b/a/2/x", "b/a0"}));
  EXPECT_EQ(names(store(), "b"), (std::vector<std::string>{"b/a-1", "b/a/1", "b/a/2/x", "b/a0", "b2/x"}));
  EXPECT_EQ(names(store(), "b/a/2/x"), std::vector<std::string>{"b/a/2/x"});
  EXPECT_TRUE(names(store(), "c").empty());
}

TEST_P(ObjectStoreContract, WhatTheListingsCallerThrowsIsTheCallers) {
  store().put("one", Buffer::from("1"), {});
  store().put("two", Buffer::from("2"), {});
  int calls = 0;
  const auto thrower = [&](const ObjectInfo&) {
    ++calls;
    throw StoreError(Code::unavailable, "not the store's fault", {}, true);
  };
  EXPECT_EQ(code_of([&] { store().list("", thrower, {}); }), Code::unavailable);
  EXPECT_EQ(calls, 1);
}

TEST_P(ObjectStoreContract, RemovesOnce) {
  store().put("x/one", Buffer::from("1"), {});
  store().put("x/two", Buffer::from("2"), {});
  EXPECT_TRUE(store().remove("x/one", {}));
  EXPECT_FALSE(store().remove("x/one", {}));
  EXPECT_FALSE(store().stat("x/one", {}));
  EXPECT_EQ(store().get("x/two", kAny, {}).text(), "2");
  store().put("x/one", Buffer::from("again"), {});
  EXPECT_EQ(store().get("x/one", kAny, {}).text(), "again");
}

TEST_P(ObjectStoreContract, RefusesWhatIsNoName) {
  const Buffer body = Buffer::from("x");
  for (const std::string& bad :
       {std::string(), std::string("/abs"), std::string("a//b"), std::string("a/"), std::string("../up"),
        std::string("a/../b"), std::string("a/.."), std::string("."), std::string("a/./b"), std::string("sp ace"),
        std::string("per%41cent"), std::string("q?x"), std::string("new\nline"), std::string("nul\0l", 5),
        std::string("caf\xc3\xa9"), std::string("til~de"), std::string(201, 'x'), std::string("a\\b")}) {
    EXPECT_EQ(code_of([&] { store().put(bad, body, {}); }), Code::invalid_argument) << bad;
    EXPECT_EQ(code_of([&] { store().put_new(bad, body, {}); }), Code::invalid_argument) << bad;
    EXPECT_EQ(code_of([&] { store().get(bad, kAny, {}); }), Code::invalid_argument) << bad;
    EXPECT_EQ(code_of([&] { store().stat(bad, {}); }), Code::invalid_argument) << bad;
    EXPECT_EQ(code_of([&] { store().remove(bad, {}); }), Code::invalid_argument) << bad;
    EXPECT_EQ(code_of([&] { store().join(bad, {}, {}); }), Code::invalid_argument) << bad;
  }
  EXPECT_TRUE(names(store(), "").empty());
}

TEST_P(ObjectStoreContract, TakesEveryNameThatIsOne) {
  const std::string part(200, 'n');
  for (const std::string& good : {std::string("..."), std::string("a..b"), std::string("-"), std::string("_/-/x.y"),
                                  std::string("20260131T235959Z-1f9a3c5e/segment-00000001"), part + "/" + part}) {
    store().put(good, Buffer::from(good), {});
    EXPECT_EQ(store().get(good, kAny, {}).text(), good);
    EXPECT_EQ(store().name_of(store().href(good)), good);
    EXPECT_TRUE(store().remove(good, {}));
  }
}

TEST_P(ObjectStoreContract, AddressesLeadBackAndNowhereElse) {
  const std::string href = store().href("id/manifest.json");
  ASSERT_TRUE(href.ends_with("/id/manifest.json")) << href;
  EXPECT_EQ(store().name_of(href), "id/manifest.json");
  const std::string root = href.substr(0, href.size() - std::string("/id/manifest.json").size());
  EXPECT_EQ(store().name_of(root + "/id%2Dx/a"), "id-x/a");
  EXPECT_EQ(store().name_of(root + "//id/a"), "id/a");
  const auto scheme = root.substr(0, root.find("://"));
  for (const std::string& bad : {std::string(),
                                 std::string("id/manifest.json"),
                                 root,
                                 root + "/",
                                 root + "x/id/a",
                                 root + "/../id/a",
                                 root + "/id/../../x/a",
                                 root + "/%2e%2e/a",
                                 root + "/id/%2e%2E/a",
                                 root + "/id/a%00b",
                                 root + "/id/a%zz",
                                 root + "/id/a%",
                                 root + "/id/a?x=1",
                                 root + "/id/a#f",
                                 root + "/sp%20ace",
                                 std::string("gopher") + root.substr(scheme.size()),
                                 std::string("http://example.invalid/id/a"),
                                 std::string("https://user:pw@example.invalid/id/a"),
                                 std::string("file:///etc/passwd"),
                                 scheme + "://",
                                 scheme + ":"}) {
    EXPECT_EQ(store().name_of(bad), std::nullopt) << bad;
  }
}

TEST_P(ObjectStoreContract, IsUsedFromManyThreads) {
  constexpr unsigned kThreads = 8;
  std::vector<std::jthread> threads;
  std::atomic<unsigned> wrong{0};
  // Swift removes an object's older file when the newer is there, also under a reader that has just chosen it: for such
  // a reader there is none, for a moment. Objects of a snapshot are never replaced.
  const auto get_replaced = [&](const char* name) {
    for (unsigned tries = 0;; ++tries) {
      try {
        return store().get(name, kAny, {});
      } catch (const Error& e) {
        if (e.code() != Code::not_found || tries == 4) throw;
      }
    }
  };
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned round = 0; round < 4; ++round) try {
          const Buffer body = test_bytes(200000 + t, t);
          const std::string own = "own/" + std::to_string(t) + "/" + std::to_string(round);
          store().put(own, body, {});
          store().put("shared", body, {});
          if (sha256_hex(store().get(own, kAny, {})) != sha256_hex(body)) ++wrong;
          const Buffer shared = get_replaced("shared");
          if (shared.size() < 200000 ||
              sha256_hex(shared) !=
                  sha256_hex(test_bytes(shared.size(), static_cast<unsigned>(shared.size() - 200000))))
            ++wrong;
          if (round % 2 == 1 && !store().remove(own, {})) ++wrong;
        } catch (const Error& e) {
          ADD_FAILURE() << e.what();
        }
    });
  }
  threads.clear();
  EXPECT_EQ(wrong, 0U);
  EXPECT_EQ(names(store(), "own/").size(), kThreads * 2);
}

TEST_P(ObjectStoreContract, StopsWhenAsked) {
  store().put("there", test_bytes(1000, 1), {});
  std::stop_source source;
  source.request_stop();
  const auto stop = source.get_token();
  EXPECT_EQ(code_of([&] { store().put("never", test_bytes(3 * kChunkBytes, 1), stop); }), Code::cancelled);
  EXPECT_EQ(code_of([&] { store().put_new("never", test_bytes(3 * kChunkBytes, 1), stop); }), Code::cancelled);
  EXPECT_EQ(code_of([&] { store().get("there", kAny, stop); }), Code::cancelled);
  EXPECT_EQ(code_of([&] { store().stat("there", stop); }), Code::cancelled);
  EXPECT_EQ(code_of([&] { store().remove("there", stop); }), Code::cancelled);
  EXPECT_EQ(code_of([&] {
              store().list(
                  "", [](const ObjectInfo&) {}, stop);
            }),
            Code::cancelled);
  EXPECT_EQ(names(store(), ""), std::vector<std::string>{"there"});
}

TEST_P(ObjectStoreContract, JoinsWhatItCan) {
  std::vector<ObjectInfo> parts;
  Hasher whole(Hash::sha256);
  for (unsigned i = 0; i < 5; ++i) {
    const std::string name = "j/segment-" + std::to_string(i);
    const Buffer body = test_bytes(i == 2 ? 0 : 100000 + i, i);
    const std::string etag = store().put_new(name, body, {}).etag;
    for (const Bytes chunk : body.chunks()) whole.update(chunk);
    parts.push_back({name, body.size(), {}, etag});
  }
  ASSERT_EQ(store().join("j/stream", parts, {}), GetParam().joins);
  if (!GetParam().joins) {
    EXPECT_FALSE(store().stat("j/stream", {}));
    return;
  }
  const Buffer joined = store().get("j/stream", kAny, {});
  EXPECT_EQ(sha256_hex(joined), whole.hex());
  EXPECT_EQ(store().stat("j/stream", {})->size, joined.size());
  EXPECT_TRUE(store().remove("j/stream", {}));
  EXPECT_EQ(names(store(), "j/").size(), parts.size());
  EXPECT_EQ(store().get("j/segment-4", kAny, {}).size(), 100004U);
}

}  // namespace guestagent

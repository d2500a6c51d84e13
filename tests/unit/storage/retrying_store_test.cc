#include "storage/retrying_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "support/fake_clock.h"

namespace guestagent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

StoreError failure(std::string brief, Code code = Code::unavailable, bool retryable = true,
                   std::optional<Seconds> retry_after = std::nullopt) {
  return StoreError(code, "scripted", "look there", retryable, retry_after, std::move(brief));
}

// Throws what it was told to, in order, then succeeds; each failure takes `each_try` of the clock.
class ScriptedStore : public ObjectStore {
 public:
  explicit ScriptedStore(FakeClock& clock) : clock_(clock) {}
  void put(std::string_view, const Buffer& body, std::stop_token) override {
    seen.push_back(body.text());
    next();
  }
  NewObject put_new(std::string_view, const Buffer& body, std::stop_token) override {
    seen.push_back(body.text());
    next();
    return {true, "etag"};
  }
  bool promises_new() const override { return promises; }
  Buffer get(std::string_view, std::uint64_t, std::stop_token) override {
    next();
    return Buffer::from("content");
  }
  std::optional<ObjectInfo> stat(std::string_view, std::stop_token) override {
    next();
    return std::nullopt;
  }
  void list(std::string_view, const std::function<void(const ObjectInfo&)>& each, std::stop_token) override {
    each({"a", 1, {}});
    each({"b", 2, {}});
    next();
    each({"c", 3, {}});
  }
  bool remove(std::string_view, std::stop_token) override {
    next();
    return there;
  }
  bool join(std::string_view, const std::vector<ObjectInfo>&, std::stop_token) override {
    next();
    return true;
  }
  std::string href(std::string_view) const override {
    next();
    return "http://h/x";
  }
  std::optional<std::string> name_of(std::string_view) const override {
    next();
    return "x";
  }

  void next() const {
    ++calls;
    if (script.empty()) return;
    const StoreError e = script.front();
    script.pop_front();
    clock_.advance(each_try);
    throw e;
  }
  mutable std::deque<StoreError> script;
  mutable int calls = 0;
  Millis each_try{0};
  bool there = true;
  bool promises = false;
  std::vector<std::string> seen;

 private:
  FakeClock& clock_;
};

class RetryingStoreTest : public testing::Test {
 protected:
  RetryingStoreTest() { set_policy({}); }
  void set_policy(RetrySettings policy) {
    auto inner = std::make_unique<ScriptedStore>(clock_);
    inner_ = inner.get();
    store_ = make_retrying_store(std::move(inner), policy, clock_);
  }
  StoreError error_of_put() {
    try {
      store_->put("segment-00000017", Buffer::from("body"), stop_.get_token());
    } catch (const StoreError& e) {
      return e;
    }
    ADD_FAILURE() << "put succeeded";
    return failure("none");
  }
  FakeClock clock_;
  ScriptedStore* inner_ = nullptr;
  std::unique_ptr<ObjectStore> store_;
  std::stop_source stop_;
};

TEST_F(RetryingStoreTest, TriesAgainAndSendsTheBodyAgain) {
  inner_->script = {failure("503"), failure("reset")};
  store_->put("x", Buffer::from("body"), {});
  EXPECT_THAT(inner_->seen, ElementsAre("body", "body", "body"));
  EXPECT_EQ(clock_.slept().size(), 2U);
}

TEST_F(RetryingStoreTest, OneErrorTellsAllTries) {
  set_policy({.tries = 5, .first_delay = Millis(0), .max_delay = Millis(0)});
  inner_->each_try = Millis(18600);
  inner_->script = {failure("503"), failure("503"), failure("stalled 30 s"), failure("503"), failure("503")};
  const StoreError e = error_of_put();
  EXPECT_STREQ(e.what(), "put segment-00000017: 5 tries in 93 s: 503, 503, stalled 30 s, 503, 503; the last: scripted");
  EXPECT_EQ(e.code(), Code::unavailable);
  EXPECT_EQ(e.hint(), "look there");
  EXPECT_FALSE(e.retryable());
  EXPECT_EQ(inner_->calls, 5);
}

TEST_F(RetryingStoreTest, TheLastErrorIsToldWithoutItsBeginning) {
  set_policy({.tries = 2, .first_delay = Millis(0), .max_delay = Millis(0)});
  const auto last = [&](const std::string& what) {
    inner_->script = {failure("503"), StoreError(Code::unavailable, what, "", true, std::nullopt, "503")};
    return std::string(error_of_put().what());
  };
  EXPECT_EQ(last("put segment-00000017: http://h: answered 503"),
            "put segment-00000017: 2 tries in 0 s: 503, 503; the last: http://h: answered 503");
  EXPECT_EQ(last("log in to Swift: http://a: answered 503"),
            "put segment-00000017: 2 tries in 0 s: 503, 503; the last: log in to Swift: http://a: answered 503");
}

TEST_F(RetryingStoreTest, WhatCannotPassIsThrownAsItIs) {
  inner_->script = {failure("403", Code::permission_denied, false)};
  const StoreError e = error_of_put();
  EXPECT_STREQ(e.what(), "scripted");
  EXPECT_EQ(inner_->calls, 1);
}

TEST_F(RetryingStoreTest, WhatCannotPassEndsTheTries) {
  inner_->script = {failure("503"), failure("403", Code::permission_denied, false)};
  const StoreError e = error_of_put();
  EXPECT_EQ(e.code(), Code::permission_denied);
  EXPECT_THAT(e.what(), HasSubstr("2 tries in "));
  EXPECT_THAT(e.what(), HasSubstr(": 503, 403"));
  EXPECT_EQ(inner_->calls, 2);
}

TEST_F(RetryingStoreTest, BacksOffUpToTheCap) {
  set_policy({.tries = 12, .first_delay = Millis(100), .max_delay = Millis(1000)});
  Millis longest{0};
  for (int round = 0; round < 20; ++round) {
    inner_->script.assign(12, failure("503"));
    error_of_put();
  }
  const auto slept = clock_.slept();
  ASSERT_EQ(slept.size(), 20U * 11);
  for (std::size_t i = 0; i < slept.size(); ++i) {
    const Millis cap = std::min(Millis(100) * (1 << (i % 11)), Millis(1000));
    EXPECT_LE(slept[i], cap) << i;
    longest = std::max(longest, slept[i]);
  }
  EXPECT_GT(longest, Millis(500));
}

TEST_F(RetryingStoreTest, HonoursRetryAfter) {
  set_policy({.tries = 2, .first_delay = Millis(1), .max_delay = Millis(2000)});
  inner_->script = {failure("429", Code::unavailable, true, Seconds(7))};
  store_->get("x", 1, {});
  EXPECT_THAT(clock_.slept(), ElementsAre(Millis(7000)));
}

TEST_F(RetryingStoreTest, CapsAHostileRetryAfter) {
  set_policy({.tries = 2, .first_delay = Millis(1), .max_delay = Millis(2000)});
  inner_->script = {failure("429", Code::unavailable, true, Seconds(INT64_MAX))};
  store_->get("x", 1, {});
  EXPECT_THAT(clock_.slept(), ElementsAre(Millis(8000)));
}

TEST_F(RetryingStoreTest, StopsBetweenTries) {
  inner_->script = {failure("503"), failure("503")};
  stop_.request_stop();
  EXPECT_EQ(error_of_put().code(), Code::cancelled);
  EXPECT_EQ(inner_->calls, 0);
}

TEST_F(RetryingStoreTest, ARepeatedRemoveThatFindsNothingHasRemovedIt) {
  inner_->there = false;
  EXPECT_FALSE(store_->remove("x", {}));
  inner_->script = {failure("reset")};
  EXPECT_TRUE(store_->remove("x", {}));
}

TEST_F(RetryingStoreTest, ARepeatedListTellsEachObjectOnce) {
  inner_->script = {failure("503"), failure("503")};
  std::vector<std::string> names;
  store_->list("", [&](const ObjectInfo& info) { names.push_back(info.name); }, {});
  EXPECT_THAT(names, ElementsAre("a", "b", "c"));
}

TEST_F(RetryingStoreTest, WhatTheCallbackThrowsIsNotTriedAgain) {
  int calls = 0;
  EXPECT_THROW(store_->list("",
                            [&](const ObjectInfo&) {
                              ++calls;
                              throw failure("mine");
                            },
                            {}),
               StoreError);
  EXPECT_EQ(calls, 1);
}

TEST_F(RetryingStoreTest, EveryMethodIsTriedAgain) {
  const auto fails_once = [&] { inner_->script = {failure("503")}; };
  fails_once();
  EXPECT_EQ(store_->get("x", 10, {}).text(), "content");
  fails_once();
  EXPECT_FALSE(store_->stat("x", {}));
  fails_once();
  EXPECT_TRUE(store_->join("x", {}, {}));
  fails_once();
  EXPECT_EQ(store_->put_new("x", Buffer::from("x"), {}).etag, "etag");
  EXPECT_FALSE(store_->promises_new());
  inner_->promises = true;
  EXPECT_TRUE(store_->promises_new());
  fails_once();
  EXPECT_EQ(store_->href("x"), "http://h/x");
  fails_once();
  EXPECT_EQ(store_->name_of("http://h/x"), "x");
  EXPECT_EQ(inner_->calls, 12);
}

TEST_F(RetryingStoreTest, OtherErrorsPass) {
  class Broken : public ScriptedStore {
   public:
    using ScriptedStore::ScriptedStore;
    bool remove(std::string_view, std::stop_token) override { throw Error(Code::internal, "a bug"); }
  };
  const auto store = make_retrying_store(std::make_unique<Broken>(clock_), {}, clock_);
  EXPECT_THROW(store->remove("x", {}), Error);
  EXPECT_TRUE(clock_.slept().empty());
}

}  // namespace
}  // namespace guestagent

// put_new() where the store, or the way to it, does not do as it should: Swift, Ceph's, and S3 of several kinds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <map>
#include <mutex>
#include <thread>

#include "base/file.h"
#include "fake_swift.h"
#include "storage/claim.h"
#include "storage/s3/settings.h"
#include "storage/stores.h"
#include "stream/digest.h"
#include "support/fake_clock.h"

namespace guestagent {
namespace {

bool is_put_of(const PeerRequest& request, const char* name) {
  return request.method == "PUT" && request.path().ends_with(name);
}

// Fails the first PUT of /id/x in that way.
void fail_first_put(ScriptedHttp& peer, PeerPlan plan) {
  auto left = std::make_shared<std::atomic<int>>(1);
  peer.set_script([left, plan](const PeerRequest& request) {
    return is_put_of(request, "/id/x") && (*left)-- > 0 ? plan : PeerPlan{};
  });
}

TEST(PutNew, SwiftKnowsItsOwnWhenAnAnswerWasLost) {
  for (const PeerFault fault :
       {PeerFault::reset_after_body, PeerFault::close, PeerFault::stall, PeerFault::garbage_headers}) {
    FakeSwift swift;
    FakeClock clock;
    const auto store = make_store(swift.settings(), clock);
    store->stat("id/other", {});
    store->put("id/first", Buffer::from("the container is there"), {});
    fail_first_put(swift.peer(), {.fault = fault});
    const NewObject made = store->put_new("id/x", Buffer::from("token 1"), {});
    EXPECT_TRUE(made.ours) << static_cast<int>(fault);
    EXPECT_EQ(made.etag, md5_hex(Buffer::from("token 1")));
    EXPECT_FALSE(store->put_new("id/x", Buffer::from("token 2"), {}).ours);
    EXPECT_EQ(swift.object("id/x"), "token 1");
  }
}

TEST(PutNew, SwiftThatSaysThereIsSomethingAndShowsNothingIsAskedAgain) {
  FakeSwift swift;
  FakeClock clock;
  const auto store = make_store(swift.settings(), clock);
  store->put("id/first", Buffer::from("the container is there"), {});
  fail_first_put(swift.peer(), {.instead = PeerAnswer{.status = 412}});
  EXPECT_TRUE(store->put_new("id/x", Buffer::from("token 1"), {}).ours);
  swift.peer().set_script([](const PeerRequest& request) {
    return is_put_of(request, "/id/y") ? PeerPlan{.instead = PeerAnswer{.status = 412}} : PeerPlan{};
  });
  try {
    store->put_new("id/y", Buffer::from("token 1"), {});
    FAIL();
  } catch (const StoreError& e) {
    EXPECT_EQ(e.code(), Code::unavailable) << e.what();
  }
}

TEST(PutNew, AQuotedETagIsAnETag) {
  FakeSwift swift;
  FakeClock clock;
  const auto store = make_store(swift.settings(), clock);
  swift.put_object("id/x", "token 1");
  swift.peer().set_script([](const PeerRequest& request) -> PeerPlan {
    if (request.method != "HEAD") return {};
    return {.edit = [](PeerAnswer& answer) {
      for (auto& [name, value] : answer.headers) {
        if (name == "Etag") value = '"' + value + '"';
      }
    }};
  });
  EXPECT_TRUE(store->put_new("id/x", Buffer::from("token 1"), {}).ours);
  EXPECT_FALSE(store->put_new("id/x", Buffer::from("token 2"), {}).ours);
}

TEST(PutNew, OnACephThatDoesNotKnowTheConditionOneClaimsAtMost) {
  FakeSwift swift;
  swift.ignore_conditions();
  const auto one = make_store(swift.settings(), system_clock());
  const auto two = make_store(swift.settings(), system_clock());
  one->put("first", Buffer::from("the container is there"), {});
  for (int round = 0; round < 10; ++round) {
    const std::string id = "id-" + std::to_string(round);
    std::atomic<int> claimed = 0;
    std::barrier start(2);
    std::vector<std::jthread> threads;
    for (ObjectStore* store : {one.get(), two.get()}) {
      threads.emplace_back([&, store] {
        start.arrive_and_wait();
        try {
          make_claim(*store, id, new_claim("a host"), system_clock(), {});
          ++claimed;
        } catch (const Error& e) {
          EXPECT_EQ(e.code(), Code::already_exists) << e.what();
        }
      });
    }
    threads.clear();
    EXPECT_LE(claimed, 1);
    // Who was told so is whose claim it is; who was not left nothing.
    std::size_t left = 0;
    one->list(id + "/", [&](const ObjectInfo&) { ++left; }, {});
    EXPECT_LE(left, claimed == 1 ? 2U : 0U);
  }
}

// As much of S3 as a conditional put needs.
class NewOnS3 : public testing::Test {
 protected:
  enum class Kind { knows, ignores, refuses, conflicts, encrypted };

  NewOnS3() {
    write_file_atomic(files_.path() / "secret", "the-secret", 0600);
    settings_.store = "s3";
    settings_.container = "bucket";
    settings_.prefix = "p";
    S3Settings& s3 = settings_.own.of<S3Settings>();
    s3.endpoint = peer_.url();
    s3.access_key = "key";
    s3.secret_key_file = files_.path() / "secret";
    settings_.retry = {.tries = 4, .first_delay = Millis(10), .max_delay = Millis(100)};
    settings_.timeouts = {.connect = Millis(5000), .stall = Millis(400)};
  }
  std::unique_ptr<ObjectStore> open(Kind kind) {
    const std::lock_guard lock(mutex_);
    kind_ = kind;
    objects_.clear();
    conflicts_ = kind == Kind::conflicts ? 2 : 0;
    return make_store(settings_, clock_);
  }
  std::string object(const std::string& name) {
    const std::lock_guard lock(mutex_);
    return objects_["/bucket/p/" + name];
  }

  PeerAnswer answer(const PeerRequest& request) {
    const std::lock_guard lock(mutex_);
    const auto found = objects_.find(request.path());
    const auto etag = [&](const std::string& body) {
      return '"' + md5_hex(Buffer::from(kind_ == Kind::encrypted ? "sealed " + body : body)) + '"';
    };
    if (request.method == "PUT") {
      if (request.headers.contains("if-none-match")) {
        if (kind_ == Kind::refuses) return {.status = 501, .body = "<Error><Code>NotImplemented</Code></Error>"};
        if (conflicts_-- > 0) return {.status = 409, .body = "<Error><Code>ConditionalRequestConflict</Code></Error>"};
        if (kind_ != Kind::ignores && found != objects_.end()) {
          return {.status = 412, .body = "<Error><Code>PreconditionFailed</Code></Error>"};
        }
      }
      objects_[request.path()] = request.body;
      return {.status = 200, .headers = {{"ETag", etag(request.body)}, encryption()}};
    }
    if (found == objects_.end()) return {.status = 404};
    PeerAnswer out{.status = 200, .headers = {{"ETag", etag(found->second)}, encryption()}};
    if (request.method == "HEAD") {
      out.headers.emplace_back("Content-Length", std::to_string(found->second.size()));
    } else {
      out.body = found->second;
    }
    return out;
  }
  std::pair<std::string, std::string> encryption() const {
    return {"x-amz-server-side-encryption", kind_ == Kind::encrypted ? "aws:kms" : "AES256"};
  }

  TempDir files_{fs::temp_directory_path(), "guestagent-s3-"};
  std::mutex mutex_;
  std::map<std::string, std::string> objects_;
  Kind kind_ = Kind::knows;
  int conflicts_ = 0;
  StorageSettings settings_;
  FakeClock clock_;
  ScriptedHttp peer_{[this](const PeerRequest& request) { return answer(request); }};
};

TEST_F(NewOnS3, OnlyWhereNothingIs) {
  for (const Kind kind : {Kind::knows, Kind::refuses, Kind::conflicts, Kind::encrypted}) {
    SCOPED_TRACE(static_cast<int>(kind));
    const auto store = open(kind);
    EXPECT_FALSE(store->promises_new());
    EXPECT_TRUE(store->put_new("id/x", Buffer::from("token 1"), {}).ours);
    EXPECT_TRUE(store->put_new("id/x", Buffer::from("token 1"), {}).ours);
    EXPECT_FALSE(store->put_new("id/x", Buffer::from("token 2"), {}).ours);
    EXPECT_FALSE(store->put_new("id/x", Buffer::from("longer than token 1"), {}).ours);
    EXPECT_EQ(object("id/x"), "token 1");
    EXPECT_TRUE(store->put_new("id/y", Buffer::from("token 2"), {}).ours);
  }
}

TEST_F(NewOnS3, KnowsItsOwnWhenAnAnswerWasLost) {
  for (const Kind kind : {Kind::knows, Kind::ignores, Kind::encrypted}) {
    const auto store = open(kind);
    fail_first_put(peer_, {.fault = PeerFault::reset_after_body});
    EXPECT_TRUE(store->put_new("id/x", Buffer::from("token 1"), {}).ours) << static_cast<int>(kind);
    EXPECT_EQ(object("id/x"), "token 1");
  }
}

}  // namespace
}  // namespace guestagent

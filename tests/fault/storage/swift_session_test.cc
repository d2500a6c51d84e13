// Tokens, containers, listings and joins of Swift under trouble.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "fake_swift.h"
#include "storage/stores.h"
#include "storage/swift/settings.h"
#include "stream/digest.h"
#include "support/fake_clock.h"

namespace guestagent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SwiftTrouble : public testing::Test {
 protected:
  void open(StorageSettings settings) { store_ = make_store(settings, clock_); }
  template <typename F>
  StoreError error_of(F&& f) {
    try {
      f();
    } catch (const StoreError& e) {
      return e;
    }
    ADD_FAILURE() << "no error";
    return StoreError(Code::internal, "none", {}, false);
  }
  // Answers the next `count` requests whose target has `part` in it.
  void answer_next(const std::string& part, int count, PeerPlan plan) {
    left_ = count;
    swift_.peer().set_script([this, part, plan](const PeerRequest& request) {
      if (request.target.find(part) == std::string::npos || left_-- <= 0) return PeerPlan{};
      return plan;
    });
  }
  static PeerPlan status(int code, std::string body = {}) {
    return {.instead = PeerAnswer{.status = code, .body = std::move(body)}};
  }
  FakeSwift swift_;
  FakeClock clock_;
  std::atomic<int> left_{0};
  std::unique_ptr<ObjectStore> store_;
};

TEST_F(SwiftTrouble, NothingIsAskedBeforeItIsNeeded) {
  open(swift_.settings());
  EXPECT_EQ(swift_.peer().connections(), 0U);
  EXPECT_EQ(store_->name_of("file:///etc/passwd"), std::nullopt);
  EXPECT_EQ(swift_.peer().connections(), 0U);
}

TEST_F(SwiftTrouble, AnExpiredTokenIsRenewedAndTheBodySentAgain) {
  for (const char* auth : {"v1", "v3"}) {
    open(swift_.settings(auth));
    store_->put("a", Buffer::from("first"), {});
    const unsigned before = swift_.logins();
    swift_.expire_tokens();
    store_->put("a", Buffer::from("second"), {});
    EXPECT_EQ(swift_.object("a"), "second");
    EXPECT_EQ(swift_.logins(), before + 1);
    EXPECT_THAT(clock_.slept(), testing::Each(Millis(0)));
  }
}

TEST_F(SwiftTrouble, ManyThreadsRenewOnce) {
  open(swift_.settings());
  store_->put("a", Buffer::from("x"), {});
  swift_.expire_tokens();
  std::vector<std::jthread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] { store_->put("t" + std::to_string(t), Buffer::from("x"), {}); });
  }
  threads.clear();
  EXPECT_EQ(swift_.objects(), 9U);
  EXPECT_EQ(swift_.logins(), 2U);
}

TEST_F(SwiftTrouble, KeystonesTokenIsRenewedBeforeItExpires) {
  swift_.set_token_life(20);
  open(swift_.settings("v3"));
  store_->stat("a", {});
  clock_.advance(Seconds(14));
  store_->stat("a", {});
  EXPECT_EQ(swift_.logins(), 1U);
  clock_.advance(Seconds(2));
  store_->stat("a", {});
  EXPECT_EQ(swift_.logins(), 2U);
}

TEST_F(SwiftTrouble, AnEarlyRenewalThatFailsIsTriedAgainLater) {
  swift_.set_token_life(100);
  open(swift_.settings("v3"));
  store_->stat("a", {});
  answer_next("/v3/", 1, status(503));
  clock_.advance(Seconds(80));
  store_->stat("a", {});
  store_->stat("a", {});
  EXPECT_EQ(swift_.logins(), 1U);
  clock_.advance(Seconds(10));
  store_->stat("a", {});
  EXPECT_EQ(swift_.logins(), 2U);
  EXPECT_TRUE(clock_.slept().empty());
}

TEST_F(SwiftTrouble, A401ThatStaysEndsAfterAFewTries) {
  open(swift_.settings());
  answer_next("/v1/", 1000, status(401));
  const StoreError e = error_of([&] { store_->put("a", Buffer::from("x"), {}); });
  EXPECT_EQ(e.code(), Code::permission_denied);
  EXPECT_FALSE(e.hint().empty());
  EXPECT_EQ(swift_.logins(), 4U);
  EXPECT_THAT(clock_.slept(), testing::Contains(testing::Ge(Millis(1000))));
}

TEST_F(SwiftTrouble, AShortTroubleOfTheIdentityServiceIsGotOver) {
  open(swift_.settings());
  answer_next("/v1/", 3, status(401));
  store_->put("a", Buffer::from("x"), {});
  EXPECT_EQ(swift_.object("a"), "x");
}

TEST_F(SwiftTrouble, AFirstLoginThatIsRefusedIsNotTriedAgainButALaterIs) {
  StorageSettings settings = swift_.settings();
  open(settings);
  answer_next("/auth/", 1, status(401));
  EXPECT_EQ(error_of([&] { store_->stat("a", {}); }).code(), Code::permission_denied);
  EXPECT_TRUE(clock_.slept().empty());
  store_->stat("a", {});
  swift_.expire_tokens();
  answer_next("/auth/", 2, status(401));
  EXPECT_FALSE(store_->stat("a", {}));
}

TEST_F(SwiftTrouble, TheContainerIsMadeWhenItIsMissing) {
  open(swift_.settings());
  swift_.forget_container();
  EXPECT_FALSE(store_->stat("a", {}));
  EXPECT_FALSE(store_->remove("a", {}));
  store_->list("", [](const ObjectInfo&) { FAIL(); }, {});
  store_->put("a", Buffer::from("x"), {});
  EXPECT_EQ(swift_.object("a"), "x");
}

TEST_F(SwiftTrouble, PagesAreJoined) {
  open(swift_.settings());
  swift_.set_page(3);
  std::vector<std::string> wanted, names;
  for (int i = 0; i < 10; ++i) {
    wanted.push_back("n/" + std::to_string(i));
    swift_.put_object(wanted.back(), "x");
  }
  store_->list("n/", [&](const ObjectInfo& info) { names.push_back(info.name); }, {});
  EXPECT_EQ(names, wanted);
}

TEST_F(SwiftTrouble, AFaultBetweenPagesTellsNoObjectTwice) {
  open(swift_.settings());
  swift_.set_page(3);
  for (int i = 0; i < 7; ++i) swift_.put_object("n/" + std::to_string(i), "x");
  answer_next("marker=", 2, status(503));
  std::vector<std::string> names;
  store_->list("", [&](const ObjectInfo& info) { names.push_back(info.name); }, {});
  EXPECT_EQ(names.size(), 7U);
}

TEST_F(SwiftTrouble, AListingThatNeverEndsIsAnError) {
  open(swift_.settings());
  answer_next("format=json", 1000000, status(200, R"([{"name": "p/same", "bytes": 1}])"));
  EXPECT_EQ(error_of([&] { store_->list("", [](const ObjectInfo&) {}, {}); }).code(), Code::unavailable);
  for (const char* garbage :
       {"", "{", "{}", "[1]", "[{}]", R"([{"name": 1, "bytes": 1}])", R"([{"name": "p/a", "bytes": -1}])",
        R"([{"name": "p/a", "bytes": 1, "last_modified": "yesterday"}])"}) {
    answer_next("format=json", 1000000, status(200, garbage));
    EXPECT_EQ(error_of([&] { store_->list("", [](const ObjectInfo&) {}, {}); }).brief(), "garbage") << garbage;
  }
}

TEST_F(SwiftTrouble, WhatIsNoneOfOursIsNotListed) {
  open(swift_.settings());
  answer_next("format=json", 1,
              status(200,
                     R"([{"name": "other/x", "bytes": 1}, {"name": "p/../x", "bytes": 1}, {"name": "p/ok", "bytes": 5},
      {"name": "p/sp ace", "bytes": 1}, {"name": "zz", "bytes": 1}])"));
  std::vector<std::string> names;
  store_->list("", [&](const ObjectInfo& info) { names.push_back(info.name); }, {});
  EXPECT_THAT(names, ElementsAre("ok"));
}

TEST_F(SwiftTrouble, APartThatIsNotSeenYetIsWaitedFor) {
  open(swift_.settings());
  swift_.put_object("part1", "one");
  clock_.on_sleep([&] { swift_.put_object("part2", "two"); });
  EXPECT_TRUE(store_->join("whole", {{"part1", 3, {}}, {"part2", 3, {}}}, {}));
  EXPECT_EQ(swift_.object("whole"), "onetwo");
}

TEST_F(SwiftTrouble, AClusterWithoutLargeObjectsJoinsNothing) {
  open(swift_.settings());
  swift_.set_large_objects(false, 0);
  swift_.put_object("part", "one");
  EXPECT_FALSE(store_->join("whole", {{"part", 3, {}}}, {}));
  EXPECT_FALSE(swift_.object("whole"));
}

TEST_F(SwiftTrouble, AClusterThatHidesThatItHasNoLargeObjectsKeepsNoList) {
  open(swift_.settings());
  swift_.set_large_objects(false, 0);
  swift_.put_object("part", "one");
  answer_next("/info", 1000, status(404));
  EXPECT_FALSE(store_->join("whole", {{"part", 3, {}}}, {}));
  EXPECT_FALSE(swift_.object("whole"));
}

TEST_F(SwiftTrouble, JoinsNestAsDeepAsNeeded) {
  open(swift_.settings());
  swift_.set_large_objects(true, 3);
  std::vector<ObjectInfo> parts;
  std::string whole;
  for (int i = 0; i < 20; ++i) {
    const std::string name = "s" + std::to_string(100 + i), body = std::to_string(i) + ",";
    swift_.put_object(name, body);
    whole += body;
    parts.push_back({name, body.size(), {}});
  }
  EXPECT_TRUE(store_->join("whole", parts, {}));
  EXPECT_EQ(swift_.object("whole"), whole);
  EXPECT_FALSE(store_->join("nothing", {}, {}));
}

TEST_F(SwiftTrouble, CredentialsGoNowhereElse) {
  ScriptedHttp other([](const PeerRequest&) { return PeerAnswer{}; });
  open(swift_.settings());
  store_->put("id/manifest.json", Buffer::from("x"), {});
  EXPECT_EQ(store_->name_of(store_->href("id/manifest.json")), "id/manifest.json");
  EXPECT_EQ(store_->name_of(other.url() + "/v1/AUTH_test/c/p/id/manifest.json"), std::nullopt);
  EXPECT_EQ(store_->name_of(swift_.peer().url() + "/v1/AUTH_other/c/p/id/manifest.json"), std::nullopt);
  EXPECT_EQ(store_->name_of(swift_.peer().url() + "/v1/AUTH_test/c/p/../../x/manifest.json"), std::nullopt);
  EXPECT_EQ(other.connections(), 0U);
}

TEST_F(SwiftTrouble, AStorageUrlThatIsNoneIsRefused) {
  for (const char* url :
       {"ftp://127.0.0.1/v1/AUTH_test", "nonsense", "http://user:pw@127.0.0.1/v1/AUTH_test", "file:///etc"}) {
    swift_.set_storage_url(url);
    open(swift_.settings());
    const StoreError e = error_of([&] { store_->stat("a", {}); });
    EXPECT_EQ(e.code(), Code::failed_precondition) << e.what();
  }
}

TEST_F(SwiftTrouble, AConfiguredStorageUrlNeedsNoLoginToBeKnown) {
  StorageSettings settings = swift_.settings();
  settings.own.of<SwiftSettings>().storage_url = swift_.peer().url() + "/v1/AUTH_test/";
  open(settings);
  EXPECT_EQ(store_->href("x"), swift_.peer().url() + "/v1/AUTH_test/c/p/x");
  EXPECT_EQ(swift_.logins(), 0U);
}

TEST_F(SwiftTrouble, ACatalogWithoutTheRegionSaysSo) {
  StorageSettings settings = swift_.settings("v3");
  settings.own.of<SwiftSettings>().region = "Nowhere";
  open(settings);
  const StoreError e = error_of([&] { store_->stat("a", {}); });
  EXPECT_EQ(e.code(), Code::failed_precondition);
  EXPECT_THAT(e.what(), HasSubstr("\"Nowhere\""));
}

TEST_F(SwiftTrouble, KeystonesGarbageIsAnErrorOfItsOwn) {
  for (
      const char* garbage :
      {"", "[]", "{}", R"({"token": 1})", R"({"token": {"catalog": 1}})", R"({"token": {"catalog": [1]}})",
       R"({"token": {"catalog": [{"type": "object-store", "endpoints": [{"interface": "public", "region_id": "One"}]}]}})",
       R"({"token": {"issued_at": "x", "expires_at": "y", "catalog": []}})"}) {
    open(swift_.settings("v3"));
    answer_next("/v3/", 1000,
                {.instead = PeerAnswer{.status = 201, .headers = {{"X-Subject-Token", "t"}}, .body = garbage}});
    EXPECT_EQ(error_of([&] { store_->stat("a", {}); }).code(), Code::unavailable) << garbage;
  }
}

TEST_F(SwiftTrouble, ACallerWithADigestOfItsOwnIsNotHeldUpByTheStores) {
  open(swift_.settings());
  swift_.put_object("a", "right");
  swift_.peer().set_script([](const PeerRequest& request) {
    PeerPlan plan;
    if (request.method == "GET") plan.edit = [](PeerAnswer& answer) { answer.body = "wrong"; };
    return plan;
  });
  EXPECT_EQ(store_->get_unverified("a", 100, {}).text(), "wrong");
  EXPECT_EQ(error_of([&] { store_->get("a", 100, {}); }).code(), Code::data_loss);
}

TEST_F(SwiftTrouble, EtagsAreComparedWhateverTheirForm) {
  open(swift_.settings());
  swift_.put_object("a", "body");
  const auto upper = [](std::string text) {
    for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return text;
  };
  const std::string right = md5_hex(Buffer::from("body")), wrong = md5_hex(Buffer::from("other"));
  for (const auto& [form, md5] : std::vector<std::pair<std::string, std::string>>{{right, right},
                                                                                  {'"' + right + '"', right},
                                                                                  {upper(right), right},
                                                                                  {'"' + upper(right) + '"', right},
                                                                                  {"W/\"" + right + '"', right},
                                                                                  {wrong, wrong},
                                                                                  {'"' + wrong + '"', wrong},
                                                                                  {upper(wrong), wrong},
                                                                                  {"W/\"" + wrong + '"', wrong}}) {
    swift_.peer().set_script([form = form](const PeerRequest&) {
      return PeerPlan{.edit = [form](PeerAnswer& answer) {
        for (auto& [name, value] : answer.headers)
          if (name == "Etag") value = form;
      }};
    });
    const auto put = [&] { store_->put("a", Buffer::from("body"), {}); };
    const auto get = [&] { EXPECT_EQ(store_->get("a", 100, {}).text(), "body"); };
    if (md5 == right) {
      EXPECT_NO_THROW(put()) << form;
      EXPECT_NO_THROW(get()) << form;
    } else {
      EXPECT_EQ(error_of(put).code(), Code::data_loss) << form;
      EXPECT_EQ(error_of(get).code(), Code::data_loss) << form;
    }
  }
}

TEST_F(SwiftTrouble, AnAnswerWithoutAnMd5IsReadAndTold) {
  open(swift_.settings());
  swift_.put_object("a", "body");
  swift_.peer().set_script([](const PeerRequest&) {
    return PeerPlan{.edit = [](PeerAnswer& answer) {
      std::erase_if(answer.headers, [](const auto& h) { return h.first == "Etag"; });
    }};
  });
  testing::internal::CaptureStderr();
  EXPECT_EQ(store_->get("a", 100, {}).text(), "body");
  EXPECT_EQ(store_->get("a", 100, {}).text(), "body");
  const std::string log = testing::internal::GetCapturedStderr();
  const auto first = log.find("tells no MD5");
  ASSERT_NE(first, std::string::npos) << log;
  EXPECT_EQ(log.find("tells no MD5", first + 1), std::string::npos) << "told once";
}

TEST_F(SwiftTrouble, AnswersWithoutALengthAreAnswers) {
  open(swift_.settings());
  for (int i = 0; i < 3; ++i) swift_.put_object("n/" + std::to_string(i), "body");
  for (const bool chunked : {false, true}) {
    swift_.peer().set_script([chunked](const PeerRequest& request) {
      if (request.target.starts_with("/auth/")) return PeerPlan{};
      return PeerPlan{.edit = [chunked, head = request.method == "HEAD"](PeerAnswer& answer) {
        std::erase_if(answer.headers, [](const auto& header) { return header.first == "Content-Length"; });
        if (!chunked || answer.status == 204) {
          answer.no_length = true;
          return;
        }
        answer.headers.emplace_back("Transfer-Encoding", "chunked");
        std::string coded;
        for (const char c : answer.body) coded += std::string("1\r\n") + c + "\r\n";
        answer.body = head ? "" : coded + "0\r\n\r\n";
      }};
    });
    EXPECT_EQ(store_->get("n/0", 100, {}).text(), "body") << chunked;
    EXPECT_EQ(store_->stat("n/0", {})->size, 4U) << chunked;
    EXPECT_FALSE(store_->stat("none", {})) << chunked;
    unsigned count = 0;
    store_->list("", [&](const ObjectInfo&) { ++count; }, {});
    EXPECT_EQ(count, 3U) << chunked;
  }
}

TEST_F(SwiftTrouble, APageThatIsShortIsNoEnd) {
  open(swift_.settings());
  for (const std::size_t size : {1U, 5U}) {
    swift_.set_page(size);
    for (int i = 0; i < 12; ++i) swift_.put_object("n/" + std::to_string(100 + i), "x");
    unsigned count = 0;
    store_->list("n/", [&](const ObjectInfo&) { ++count; }, {});
    EXPECT_EQ(count, 12U);
  }
}

TEST_F(SwiftTrouble, AListingThatAnswers404IsAskedAgain) {
  open(swift_.settings());
  swift_.set_page(2);
  for (int i = 0; i < 5; ++i) swift_.put_object("n/" + std::to_string(i), "x");
  const auto count = [&] {
    unsigned n = 0;
    store_->list("n/", [&](const ObjectInfo&) { ++n; }, {});
    return n;
  };
  answer_next("format=json", 1, status(404));
  EXPECT_EQ(count(), 5U);
  answer_next("marker=", 1, status(404));
  EXPECT_EQ(count(), 5U);
  answer_next("format=json", 1000, status(404));
  EXPECT_EQ(count(), 0U);
}

TEST_F(SwiftTrouble, AListingThatIgnoresItsParametersTellsNothingOfOthers) {
  open(swift_.settings());
  answer_next(
      "format=json", 1,
      status(
          200,
          R"([{"name": "p/monday/a", "bytes": 1}, {"name": "p/tuesday/a", "bytes": 1}, {"name": "q/monday/a", "bytes": 1}])"));
  std::vector<std::string> names;
  store_->list("monday/", [&](const ObjectInfo& info) { names.push_back(info.name); }, {});
  EXPECT_THAT(names, ElementsAre("monday/a"));
}

TEST_F(SwiftTrouble, ARotatedKeyIsReadAgain) {
  for (const char* auth : {"v1", "v3"}) {
    swift_.set_key(kFakeKey);
    write_file_atomic(swift_.key_file(), kFakeKey, 0600);
    open(swift_.settings(auth));
    store_->put("a", Buffer::from("first"), {});
    swift_.set_key("another-key");
    swift_.expire_tokens();
    const StoreError e = error_of([&] { store_->put("a", Buffer::from("x"), {}); });
    EXPECT_EQ(e.code(), Code::permission_denied);
    EXPECT_THAT(e.what(), HasSubstr("; the last: log in to ")) << "which step";
    EXPECT_THAT(e.what(), HasSubstr(swift_.peer().url()));
    write_file_atomic(swift_.key_file(), "another-key\n", 0600);
    store_->put("a", Buffer::from("second"), {});
    EXPECT_EQ(swift_.object("a"), "second") << auth;
  }
}

TEST_F(SwiftTrouble, AKeyFileThatIsGoneForAMomentIsNoEnd) {
  open(swift_.settings());
  store_->put("a", Buffer::from("x"), {});
  fs::remove(swift_.key_file());
  swift_.expire_tokens();
  store_->put("a", Buffer::from("y"), {});
  EXPECT_EQ(swift_.object("a"), "y");
}

TEST_F(SwiftTrouble, ALoginsTroubleIsNotThatOfAnObject) {
  struct Row {
    int status;
    Code code;
    const char* hint;
  };
  for (const Row& row :
       {Row{404, Code::failed_precondition, "auth_url"}, Row{413, Code::failed_precondition, ""},
        Row{429, Code::unavailable, "log in"}, Row{507, Code::unavailable, ""}, Row{422, Code::unavailable, ""}}) {
    for (const char* auth : {"v1", "v3"}) {
      open(swift_.settings(auth));
      swift_.peer().set_script([&](const PeerRequest& request) {
        return request.target.starts_with("/auth/") || request.target.starts_with("/v3/") ? status(row.status)
                                                                                          : PeerPlan{};
      });
      const StoreError e = error_of([&] { store_->get("a", 100, {}); });
      EXPECT_EQ(e.code(), row.code) << e.what();
      EXPECT_THAT(e.what(), HasSubstr("log in to "));
      EXPECT_THAT(e.hint(), HasSubstr(row.hint));
    }
  }
}

TEST_F(SwiftTrouble, AReadOnlyClusterIsSaid) {
  open(swift_.settings());
  swift_.put_object("a", "x");
  answer_next("/p/a", 1000, status(405, "Writes are disabled for this account."));
  for (const auto& call : {std::function<void()>([&] { store_->put("a", Buffer::from("x"), {}); }),
                           std::function<void()>([&] { store_->remove("a", {}); })}) {
    const StoreError e = error_of(call);
    EXPECT_THAT(e.what(), HasSubstr("Writes are disabled"));
    EXPECT_THAT(e.hint(), HasSubstr("read-only"));
  }
}

TEST_F(SwiftTrouble, ARedirectSaysWhere) {
  open(swift_.settings());
  answer_next("/p/a", 1000,
              {.instead = PeerAnswer{.status = 301, .headers = {{"Location", "https://other.example/v1/x?secret=1"}}}});
  const StoreError e = error_of([&] { store_->stat("a", {}); });
  EXPECT_THAT(e.what(), HasSubstr("301 Moved Permanently to https://other.example/v1/x"));
  EXPECT_THAT(e.what(), testing::Not(HasSubstr("secret")));
}

TEST_F(SwiftTrouble, HttpsToAPlainPortIsFinal) {
  StorageSettings settings = swift_.settings();
  settings.own.of<SwiftSettings>().auth_url = "https" + settings.own.of<SwiftSettings>().auth_url.substr(4);
  open(settings);
  const StoreError e = error_of([&] { store_->stat("a", {}); });
  EXPECT_EQ(e.code(), Code::failed_precondition);
  EXPECT_THAT(e.what(), HasSubstr("log in to Swift: https://127.0.0.1"));
  EXPECT_THAT(e.hint(), HasSubstr("http://"));
  EXPECT_TRUE(clock_.slept().empty());
}

TEST_F(SwiftTrouble, ADeleteWhoseAnswerIsLostHasDeleted) {
  open(swift_.settings());
  swift_.put_object("a", "x");
  store_->stat("a", {});
  left_ = 1;
  swift_.peer().set_script([&](const PeerRequest& request) {
    return PeerPlan{.fault = request.method == "DELETE" && left_-- > 0 ? PeerFault::reset_after_body : PeerFault::none};
  });
  EXPECT_TRUE(store_->remove("a", {}));
  EXPECT_FALSE(swift_.object("a"));
}

}  // namespace
}  // namespace guestagent

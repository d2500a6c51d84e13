#include <gmock/gmock.h>

#include <thread>

#include "../storage/object_store_suite.h"
#include "lab.h"
#include "storage/http/store_http.h"
#include "storage/stores.h"
#include "storage/swift/settings.h"
#include "stream/digest.h"

namespace guestagent {
namespace {

using testing::HasSubstr;

StoreUnderTest swift_of(const LabSettings& lab) {
  return {lab.files, make_store(lab.storage, system_clock())};
}

StoreUnderTest by_login() {
  return swift_of(lab_swift());
}

StoreUnderTest without_prefix() {
  LabSettings lab = lab_swift();
  lab.storage.prefix = "";
  lab.storage.own.of<SwiftSettings>().storage_policy = guestagent::lab("SWIFT_POLICY");
  return swift_of(lab);
}

INSTANTIATE_TEST_SUITE_P(Swift, ObjectStoreContract,
                         testing::Values(StoreKind{"login", by_login, true},
                                         StoreKind{"no_prefix", without_prefix, true}),
                         kind_name);

// What only Swift can show.
class SwiftStoreTest : public testing::Test {
 protected:
  SwiftStoreTest() : lab_(lab_swift()), http_(lab_.storage.timeouts, lab_.storage.own.of<SwiftSettings>().tls) {
    open();
  }
  ~SwiftStoreTest() override {
    std::vector<std::string> names;
    store_->list("", [&](const ObjectInfo& info) { names.push_back(info.name); }, {});
    for (const auto& name : names) store_->remove(name, {});
  }
  void open() { store_ = make_store(lab_.storage, system_clock()); }

  // As the operator with curl would ask.
  HttpResponse ask(const std::string& method, const std::string& url) {
    if (token_.empty()) {
      HttpRequest login{.what = "log in", .method = "GET", .url = lab("SWIFT_AUTH_URL")};
      login.headers = {{"X-Auth-User", lab("SWIFT_USER")}, {"X-Auth-Key", lab("SWIFT_KEY")}};
      token_ = http_.send(login, {}).header("x-auth-token").value_or("");
    }
    HttpRequest request{.what = "ask", .method = method, .url = url, .headers = {{"X-Auth-Token", token_}}};
    request.max_answer = 1 << 30;
    return http_.send(request, {});
  }
  std::string container_url() const { return lab("SWIFT_STORAGE_URL") + "/" + lab_.storage.container; }

  LabSettings lab_;
  StoreHttp http_;
  std::string token_;
  std::unique_ptr<ObjectStore> store_;
};

TEST_F(SwiftStoreTest, AddressesArePlainUrls) {
  EXPECT_EQ(store_->href("id/manifest.json"), container_url() + "/a/prefix/id/manifest.json");
  store_->put("id/manifest.json", Buffer::from("here"), {});
  EXPECT_EQ(ask("GET", store_->href("id/manifest.json")).body.text(), "here");
}

TEST_F(SwiftStoreTest, TheContainerGetsThePolicy) {
  lab_.storage.own.of<SwiftSettings>().storage_policy = lab("SWIFT_POLICY");
  open();
  store_->put("x", Buffer::from("x"), {});
  EXPECT_EQ(ask("HEAD", container_url()).header("x-storage-policy"), lab("SWIFT_POLICY"));
}

TEST_F(SwiftStoreTest, APolicyNobodyKnowsIsAnError) {
  lab_.storage.own.of<SwiftSettings>().storage_policy = "no-such-policy";
  open();
  EXPECT_THROW(store_->put("x", Buffer::from("x"), {}), StoreError);
}

TEST_F(SwiftStoreTest, DeleteAfterIsOnPiecesAndWhole) {
  lab_.storage.own.of<SwiftSettings>().delete_after_s = 3600;
  open();
  store_->put("part", Buffer::from("abc"), {});
  ASSERT_TRUE(store_->join("whole", {{"part", 3, {}}}, {}));
  EXPECT_TRUE(ask("HEAD", store_->href("part")).header("x-delete-at"));
  const auto whole = ask("HEAD", store_->href("whole"));
  EXPECT_TRUE(whole.header("x-delete-at"));
  EXPECT_TRUE(whole.header("x-static-large-object"));
}

// As accounts and containers may ask for, and clusters by default: "…" around every ETag.
TEST_F(SwiftStoreTest, QuotedEtagsAreEtags) {
  HttpRequest quote{.what = "ask for quotes", .method = "PUT", .url = container_url()};
  ask("HEAD", lab("SWIFT_STORAGE_URL"));  // logs in; the container is not asked for before it is there
  quote.headers = {{"X-Auth-Token", token_}, {"X-Container-Rfc-Compliant-Etags", "true"}};
  ASSERT_TRUE(http_.send(quote, {}).ok());
  const Buffer body = test_bytes(100000, 1);
  store_->put("part", body, {});
  const HttpResponse head = ask("HEAD", store_->href("part"));
  const std::string_view seen = head.header("etag").value_or("");
  ASSERT_TRUE(seen.starts_with('"')) << "the lab's cluster does not quote: " << seen;
  EXPECT_EQ(store_->get("part", 1 << 20, {}).text(), body.text());
  ASSERT_TRUE(store_->join("whole", {{"part", body.size(), {}}}, {}));
  EXPECT_EQ(store_->get("whole", 1 << 20, {}).text(), body.text());
}

// The lab's cluster gives 100 names at once when run with --listing-limit 100, and refuses to be asked for more.
TEST_F(SwiftStoreTest, ListsMoreThanAPage) {
  constexpr unsigned kCount = 203;
  std::vector<std::jthread> writers;
  for (unsigned t = 0; t < 4; ++t) {
    writers.emplace_back([&, t] {
      for (unsigned i = t; i < kCount; i += 4) store_->put("many/" + std::to_string(100000 + i), Buffer::from("x"), {});
    });
  }
  writers.clear();
  std::vector<std::string> names;
  store_->list("many/", [&](const ObjectInfo& info) { names.push_back(info.name); }, {});
  ASSERT_EQ(names.size(), kCount);
  EXPECT_TRUE(std::ranges::is_sorted(names));
  EXPECT_EQ(names.front(), "many/100000");
  EXPECT_EQ(names.back(), "many/100202");
}

// The lab's cluster allows 5 segments in a manifest when run with --max-manifest-segments 5.
TEST_F(SwiftStoreTest, JoinsManyByNesting) {
  Hasher whole(Hash::sha256);
  std::vector<ObjectInfo> parts;
  for (unsigned i = 0; i < 32; ++i) {
    const std::string name = "n/segment-" + std::to_string(100 + i);
    const Buffer body = test_bytes(3000 + i, i);
    store_->put(name, body, {});
    for (const Bytes chunk : body.chunks()) whole.update(chunk);
    parts.push_back({name, body.size(), {}});
  }
  ASSERT_TRUE(store_->join("n/stream", parts, {}));
  EXPECT_EQ(sha256_hex(store_->get("n/stream", 1 << 20, {})), whole.hex());
  EXPECT_TRUE(store_->stat("n/stream.part-000001", {}));
  EXPECT_TRUE(store_->remove("n/stream", {}));
  EXPECT_TRUE(store_->stat("n/segment-100", {}));
}

TEST_F(SwiftStoreTest, JoiningWhatIsNotThereSaysWhich) {
  lab_.storage.retry = {.tries = 2, .first_delay = Millis(1), .max_delay = Millis(1)};
  open();
  store_->put("part", Buffer::from("abc"), {});
  try {
    store_->join("whole", {{"part", 3, {}}, {"missing", 3, {}}}, {});
    FAIL();
  } catch (const StoreError& e) {
    EXPECT_EQ(e.code(), Code::unavailable);
    EXPECT_THAT(e.what(), HasSubstr("join whole: 2 tries in "));
    EXPECT_THAT(e.what(), HasSubstr(": 404, 404"));
  }
  EXPECT_FALSE(store_->stat("whole", {}));
  try {
    store_->join("whole", {{"part", 4, {}}}, {});
    FAIL();
  } catch (const StoreError& e) {
    EXPECT_EQ(e.code(), Code::data_loss);
    EXPECT_THAT(e.what(), HasSubstr("/a/prefix/part: Size Mismatch"));
  }
  // Of the same size, but not what was stored.
  try {
    store_->join("whole", {{"part", 3, {}, md5_hex(Buffer::from("abd"))}}, {});
    FAIL();
  } catch (const StoreError& e) {
    EXPECT_EQ(e.code(), Code::data_loss);
    EXPECT_THAT(e.what(), HasSubstr("/a/prefix/part: Etag Mismatch"));
  }
}

TEST_F(SwiftStoreTest, NothingIsJoinedWhereThatIsOff) {
  lab_.storage.own.of<SwiftSettings>().large_object = false;
  open();
  store_->put("part", Buffer::from("abc"), {});
  EXPECT_FALSE(store_->join("whole", {{"part", 3, {}}}, {}));
  EXPECT_FALSE(store_->stat("whole", {}));
}

TEST_F(SwiftStoreTest, AWrongKeyIsRefusedAtOnce) {
  lab_.storage.own.of<SwiftSettings>().key_file = lab_.secret("wrong", "not-the-key");
  const auto wrong = make_store(lab_.storage, system_clock());
  try {
    wrong->put("x", Buffer::from("x"), {});
    FAIL();
  } catch (const StoreError& e) {
    EXPECT_EQ(e.code(), Code::permission_denied) << e.what();
    EXPECT_THAT(e.what(), HasSubstr("401"));
    EXPECT_THAT(std::string(e.what()) + e.hint(), testing::Not(HasSubstr("not-the-key")));
  }
}

TEST_F(SwiftStoreTest, ATokenAndAnAddressAreEnough) {
  store_->put("x", Buffer::from("x"), {});
  ask("HEAD", container_url());
  LabSettings by_token = lab_;
  by_token.storage.own.of<SwiftSettings>() = {};
  SwiftSettings& swift = by_token.storage.own.of<SwiftSettings>();
  swift.auth = "token";
  swift.storage_url = lab("SWIFT_STORAGE_URL") + "/";
  swift.token_file = lab_.secret("token", token_);
  swift.tls = lab_.storage.own.of<SwiftSettings>().tls;
  const auto store = make_store(by_token.storage, system_clock());
  EXPECT_EQ(store->href("x"), store_->href("x"));
  EXPECT_EQ(store->get("x", 10, {}).text(), "x");
}

}  // namespace
}  // namespace guestagent

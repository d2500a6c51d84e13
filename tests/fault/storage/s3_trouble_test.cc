// Listings, refusals and keys of S3 under trouble, on a scripted peer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>

#include "base/file.h"
#include "net/url.h"
#include "storage/s3/settings.h"
#include "storage/snapshots.h"
#include "storage/stores.h"
#include "stream/digest.h"
#include "support/fake_clock.h"
#include "support/scripted_http.h"

namespace guestagent {
namespace {

using testing::HasSubstr;

std::string query_value(const PeerRequest& request, const std::string& name) {
  const std::string query = "&" + request.query();
  const auto at = query.find("&" + name + "=");
  if (at == std::string::npos) return "";
  const auto from = at + name.size() + 2;
  return percent_decode(query.substr(from, query.find('&', from) - from)).value_or("");
}

bool is_listing(const PeerRequest& request) {
  return request.target.find("list-type=2") != std::string::npos;
}

std::string contents(const std::string& key) {
  return "<Contents><Key>" + key +
         "</Key><Size>1</Size><LastModified>2026-01-31T23:59:59.000Z</LastModified></Contents>";
}

// `rest`: what tells whether there is more.
std::string page_of(const std::vector<std::string>& keys, const std::string& rest) {
  std::string out =
      "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" + rest;
  for (const auto& key : keys) out += contents(key);
  return out + "</ListBucketResult>";
}

std::string refusal_of(const std::string& code, const std::string& more = {}) {
  return "<Error><Code>" + code + "</Code><Message>Some words.</Message>" + more + "</Error>";
}

// As much of S3 as the store speaks to, with a bucket "b"; the root is "p/".
class S3Trouble : public testing::Test {
 protected:
  S3Trouble()
      : files_(fs::temp_directory_path(), "guestagent-s3"),
        peer_([this](const PeerRequest& request) { return answer(request); }) {
    write("secret", "the-secret");
    settings_.store = "s3";
    settings_.container = "b";
    settings_.prefix = "p";
    S3Settings& s3 = settings_.own.of<S3Settings>();
    s3.endpoint = peer_.url();
    s3.access_key = "the-key";
    s3.secret_key_file = files_.path() / "secret";
    settings_.retry = {.tries = 4, .first_delay = Millis(500), .max_delay = Millis(30000)};
    settings_.timeouts = {.connect = Millis(5000), .stall = Millis(2000)};
    open();
  }
  void open() { store_ = make_store(settings_, clock_); }
  void write(const std::string& name, const std::string& text) {
    write_file_atomic(files_.path() / name, text + "\n", 0600);
  }

  PeerAnswer answer(const PeerRequest& request) {
    const std::lock_guard lock(mutex_);
    if (is_listing(request)) {
      std::vector<std::string> keys;
      for (const auto& [key, body] : objects_)
        if (key.starts_with(query_value(request, "prefix"))) keys.push_back(key);
      return {.status = 200, .body = page_of(keys, "<IsTruncated>false</IsTruncated>")};
    }
    const std::string key = percent_decode(request.path()).value_or("").substr(3);
    const auto found = objects_.find(key);
    if (request.method == "PUT") {
      objects_[key] = request.body;
      return {.status = 200, .headers = {{"ETag", '"' + md5_hex(Buffer::from(request.body)) + '"'}}};
    }
    if (found == objects_.end()) return {.status = 404, .body = refusal_of("NoSuchKey")};
    if (request.method == "DELETE") {
      if (!keeps_) objects_.erase(found);
      return {.status = 204};
    }
    PeerAnswer out{
        .status = 200, .headers = {{"ETag", '"' + md5_hex(Buffer::from(found->second)) + '"'}}, .body = found->second};
    if (request.method == "HEAD") out.headers.emplace_back("Content-Length", std::to_string(found->second.size()));
    return out;
  }

  // The n-th listing is answered by the n-th of these, the last one for ever; `status` where it is none.
  struct Listing {
    std::string body;
    int status = 200;
  };
  void answer_listings(std::vector<Listing> listings) {
    asked_ = 0;
    queries_.clear();
    peer_.set_script([this, listings = std::move(listings)](const PeerRequest& request) {
      if (!is_listing(request)) return PeerPlan{};
      const std::lock_guard lock(mutex_);
      queries_.push_back(query_value(request, "continuation-token") + "/" + query_value(request, "start-after"));
      const Listing& chosen = listings[std::min<std::size_t>(asked_++, listings.size() - 1)];
      return PeerPlan{.instead = PeerAnswer{.status = chosen.status, .body = chosen.body}};
    });
  }
  // "a, b", or the code and the message of the error.
  std::string listed() {
    std::string names;
    try {
      store_->list("", [&](const ObjectInfo& info) { names += (names.empty() ? "" : ", ") + info.name; }, {});
    } catch (const StoreError& e) {
      return std::string(code_row(e.code()).wire) + ": " + e.what();
    }
    return names;
  }
  StoreError error_of(const std::function<void()>& f) {
    try {
      f();
    } catch (const StoreError& e) {
      return e;
    }
    ADD_FAILURE() << "no error";
    return StoreError(Code::internal, "none", {}, false);
  }

  TempDir files_;
  FakeClock clock_;
  std::mutex mutex_;
  std::map<std::string, std::string> objects_;
  bool keeps_ = false;  // says that it deletes, and does not
  std::size_t asked_ = 0;
  std::vector<std::string> queries_;
  StorageSettings settings_;
  ScriptedHttp peer_;  // its threads use the rest
  std::unique_ptr<ObjectStore> store_;
};

TEST_F(S3Trouble, AListingIsReadToItsEndOrIsAnError) {
  const auto more = [](const std::string& token) {
    return "<IsTruncated>true</IsTruncated>" +
           (token.empty() ? "" : "<NextContinuationToken>" + token + "</NextContinuationToken>");
  };
  const std::string end = "<IsTruncated>false</IsTruncated>";
  const Listing last{page_of({"p/z"}, end)}, none{page_of({}, end)};
  struct Row {
    const char* what;
    std::vector<Listing> listings;
    std::string expected;  // names, or the words of the error
  };
  const std::vector<Row> rows = {
      {"one page", {last}, "z"},
      {"nothing", {none}, ""},
      {"an empty page in front", {{page_of({}, more("!"))}, last}, "z"},
      {"empty pages in the middle",
       {{page_of({"p/a"}, more("1"))}, {page_of({}, more("2"))}, {page_of({}, more("3"))}, last},
       "a, z"},
      {"an empty page at the end", {{page_of({"p/a"}, more("1"))}, {page_of({}, more("2"))}, none}, "a"},
      {"truncated without a token", {{page_of({"p/a"}, more(""))}, last}, "a, z"},
      {"neither token nor names, once", {{page_of({}, more(""))}, last}, "z"},
      {"neither token nor names",
       {{page_of({}, more(""))}},
       "UNAVAILABLE: list: 4 tries in .*there is more, but not where"},
      {"no names and the same token", {{page_of({}, more("1"))}}, "UNAVAILABLE: .*without an end"},
      {"the same page again", {{page_of({"p/a"}, more("1"))}}, "UNAVAILABLE: .*not in order"},
      {"out of order", {{page_of({"p/b", "p/a"}, end)}}, "UNAVAILABLE: .*not in order"},
      {"twice the same", {{page_of({"p/b", "p/b"}, end)}}, "UNAVAILABLE: .*not in order"},
      {"it does not say whether there is more",
       {{page_of({"p/a"}, "")}, {page_of({"p/b"}, "")}, {page_of({}, "")}},
       "a, b"},
      {"not truncated, with a token",
       {{page_of({"p/a"}, end + "<NextContinuationToken>1</NextContinuationToken>")}, last},
       "a"},
      {"what is none of ours", {{page_of({"a", "p/../x", "p/a", "p/sp ace", "p/\xC3\xA4", "p2/b", "z"}, end)}}, "a"},
      {"no bucket", {{refusal_of("NoSuchBucket"), 404}}, ""},
      {"a page of somebody else", {{"<html><body>404</body></html>", 404}}, "UNAVAILABLE: list: 4 tries in .*404, 404"},
      {"404 once", {{"", 404}, last}, "z"},
      {"404 in the middle",
       {{page_of({"p/a"}, more("1"))}, {refusal_of("NoSuchBucket"), 404}, {page_of({"p/a"}, more("1"))}, last},
       "a, z"},
      {"503 in the middle", {{page_of({"p/a"}, more("1"))}, {"", 503}, {page_of({"p/a"}, more("1"))}, last}, "a, z"},
      {"HTML", {{"<html><body>Log in</body></html>"}}, "UNAVAILABLE: .*no ListBucketResult"},
      {"cut", {{page_of({"p/a"}, end).substr(0, 150)}, last}, "z"},
  };
  for (const Row& row : rows) {
    answer_listings(row.listings);
    if (row.expected.find(": ") == std::string::npos) {
      EXPECT_EQ(listed(), row.expected) << row.what;
    } else {
      EXPECT_THAT(listed(), testing::ContainsRegex(row.expected)) << row.what;
    }
  }
}

TEST_F(S3Trouble, AListingGoesOnByTokenOrByName) {
  answer_listings(
      {{page_of({"p/a"}, "<IsTruncated>true</IsTruncated><NextContinuationToken>to ken</NextContinuationToken>")},
       {page_of({"p/b"}, "<IsTruncated>true</IsTruncated>")},
       {page_of({"p/c"}, "<IsTruncated>false</IsTruncated>")}});
  EXPECT_EQ(listed(), "a, b, c");
  EXPECT_THAT(queries_, testing::ElementsAre("/", "to ken/", "/p/b"));
}

TEST_F(S3Trouble, EmptyPagesWithoutEndAreAnError) {
  std::atomic<unsigned> count = 0;
  settings_.retry.tries = 1;
  open();
  peer_.set_script([&](const PeerRequest& request) {
    if (!is_listing(request)) return PeerPlan{};
    const std::string token = std::to_string(++count);
    return PeerPlan{.instead = PeerAnswer{.body = page_of({}, "<IsTruncated>true</IsTruncated><NextContinuationToken>" +
                                                                  token + "</NextContinuationToken>")}};
  });
  EXPECT_THAT(listed(), HasSubstr("without an end"));
}

TEST_F(S3Trouble, DeleteLeavesNothingWhateverThePagesAreLike) {
  for (const std::string name :
       {"manifest.json", "index-000001.json", "segment-00000001", "segment-00000002", "stream.xbstream.zst"})
    objects_["p/monday/" + name] = "x";
  objects_["p/tuesday/manifest.json"] = "x";
  // Each listing begins with a page of what was deleted once.
  peer_.set_script([](const PeerRequest& request) {
    if (!is_listing(request) || !query_value(request, "continuation-token").empty()) return PeerPlan{};
    return PeerPlan{
        .instead = PeerAnswer{
            .body = page_of({}, "<IsTruncated>true</IsTruncated><NextContinuationToken>!</NextContinuationToken>")}};
  });
  EXPECT_EQ(list_snapshots(*store_, {}).size(), 2U);
  EXPECT_EQ(delete_snapshot(*store_, "monday", {}), 5U);
  EXPECT_EQ(objects_.size(), 1U);
}

TEST_F(S3Trouble, DeleteTakesNothingOfOthersWhenTheServerIgnoresThePrefix) {
  for (const std::string id : {"monday", "tuesday"}) objects_["p/" + id + "/manifest.json"] = "x";
  objects_["q/monday/manifest.json"] = "x";
  peer_.set_script([this](const PeerRequest& request) {
    if (!is_listing(request)) return PeerPlan{};
    std::vector<std::string> keys;
    const std::lock_guard lock(mutex_);
    for (const auto& [key, body] : objects_) keys.push_back(key);
    return PeerPlan{.instead = PeerAnswer{.body = page_of(keys, "<IsTruncated>false</IsTruncated>")}};
  });
  EXPECT_EQ(delete_snapshot(*store_, "monday", {}), 1U);
  EXPECT_EQ(objects_.size(), 2U);
}

TEST_F(S3Trouble, ADeleteThatDeletesNothingIsNoSuccess) {
  objects_["p/monday/manifest.json"] = objects_["p/monday/segment-00000001"] = "x";
  keeps_ = true;
  try {
    delete_snapshot(*store_, "monday", {});
    FAIL() << "nothing was deleted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::unavailable);
    EXPECT_THAT(e.what(), HasSubstr("monday/manifest.json, monday/segment-00000001"));
  }
}

TEST_F(S3Trouble, ARefusalOfTheFirstRequestSaysWhy) {
  struct Row {
    int status;
    std::string body, region_header;
    Code code;
    std::string words, hint;
  };
  const std::vector<Row> rows = {
      {403, refusal_of("RequestTimeTooSkewed"), "", Code::permission_denied, "RequestTimeTooSkewed", "clock"},
      {403, refusal_of("SignatureDoesNotMatch"), "", Code::permission_denied, "SignatureDoesNotMatch",
       "secret_key_file"},
      {403, refusal_of("InvalidAccessKeyId"), "", Code::permission_denied, "InvalidAccessKeyId", "access_key"},
      {403, refusal_of("AccessDenied"), "", Code::permission_denied, "AccessDenied", "may not do this"},
      {403, refusal_of("QuotaExceeded"), "", Code::resource_exhausted, "QuotaExceeded", "quota"},
      {400, refusal_of("InvalidToken"), "", Code::permission_denied, "InvalidToken", "session_token_file"},
      {400, refusal_of("ExpiredToken"), "", Code::permission_denied, "ExpiredToken", "session_token_file"},
      {400, refusal_of("InvalidBucketName"), "", Code::failed_precondition, "InvalidBucketName", "storage.container"},
      {400, refusal_of("AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>"), "", Code::failed_precondition,
       "the bucket b is in eu-central-1", "storage.s3.region to eu-central-1"},
      {400, refusal_of("AuthorizationHeaderMalformed"), "eu-central-1", Code::failed_precondition,
       "the bucket b is in eu-central-1", "storage.s3.region to eu-central-1"},
      {400, refusal_of("IllegalLocationConstraintException"), "", Code::failed_precondition, "IllegalLocation",
       "storage.s3.region"},
      {301, refusal_of("PermanentRedirect", "<Endpoint>b.s3.eu-west-1.example</Endpoint>"), "",
       Code::failed_precondition, "is at b.s3.eu-west-1.example", "storage.s3.endpoint"},
      {301, "", "eu-west-1", Code::failed_precondition, "the bucket b is in eu-west-1", "storage.s3.endpoint"},
      {307, refusal_of("TemporaryRedirect", "<Endpoint>b.s3.eu-west-1.example</Endpoint>"), "",
       Code::failed_precondition, "is at b.s3.eu-west-1.example", "storage.s3.endpoint"},
      {400, "", "", Code::failed_precondition, "400 Bad Request", "storage.s3.region"},
      {403, "<html>no</html>", "", Code::permission_denied, "403 Forbidden", "may not do this"},
      {405, refusal_of("MethodNotAllowed"), "", Code::failed_precondition, "MethodNotAllowed", "a store's"},
  };
  for (const Row& row : rows) {
    peer_.set_script([row](const PeerRequest& request) {
      PeerAnswer out{.status = row.status, .body = request.method == "HEAD" ? "" : row.body};
      if (!row.region_header.empty()) out.headers.emplace_back("x-amz-bucket-region", row.region_header);
      return PeerPlan{.instead = out};
    });
    const StoreError e = error_of([&] { store_->stat("x", {}); });
    EXPECT_EQ(e.code(), row.code) << e.what();
    EXPECT_THAT(e.what(), HasSubstr(row.words));
    EXPECT_THAT(e.what(), HasSubstr(peer_.url()));
    EXPECT_THAT(e.hint(), HasSubstr(row.hint)) << e.what();
    EXPECT_THAT(std::string(e.what()) + e.hint(), testing::Not(HasSubstr("the-secret")));
  }
}

TEST_F(S3Trouble, WhoMayListButNotReadIsToldThat) {
  peer_.set_script([](const PeerRequest& request) {
    return request.method == "HEAD" ? PeerPlan{.instead = PeerAnswer{.status = 403}} : PeerPlan{};
  });
  EXPECT_EQ(error_of([&] { store_->stat("x", {}); }).code(), Code::permission_denied);
}

TEST_F(S3Trouble, AServerThatRepeatsTheTokenIsNotQuoted) {
  write("token", "the-session-token");
  settings_.own.of<S3Settings>().session_token_file = files_.path() / "token";
  open();
  peer_.set_script([](const PeerRequest& request) {
    const auto token = request.headers.find("x-amz-security-token");
    return PeerPlan{.instead = PeerAnswer{.status = 403,
                                          .body = "<Error><Code>AccessDenied</Code><Message>not with " + token->second +
                                                  "</Message></Error>"}};
  });
  const StoreError e = error_of([&] { store_->stat("x", {}); });
  EXPECT_THAT(e.what(), HasSubstr("AccessDenied"));
  EXPECT_THAT(std::string(e.what()) + e.hint(), testing::Not(HasSubstr("the-session-token")));
}

TEST_F(S3Trouble, ABucketOfSomebodyElseIsFinal) {
  peer_.set_script([](const PeerRequest& request) {
    if (request.method != "PUT") return PeerPlan{};
    const bool bucket = request.path() == "/b";
    return PeerPlan{.instead = PeerAnswer{.status = bucket ? 409 : 404,
                                          .body = refusal_of(bucket ? "BucketAlreadyExists" : "NoSuchBucket")}};
  });
  const StoreError e = error_of([&] { store_->put("x", Buffer::from("x"), {}); });
  EXPECT_EQ(e.code(), Code::failed_precondition);
  EXPECT_THAT(e.what(), HasSubstr("make the bucket b: " + peer_.url()));
  EXPECT_THAT(e.hint(), HasSubstr("somebody else"));
  EXPECT_TRUE(clock_.slept().empty());
}

TEST_F(S3Trouble, EtagsAreComparedWhateverTheirForm) {
  struct Form {
    const char* before;
    bool upper;
    const char* after;
  };
  for (const Form& form : {Form{"", false, ""},
                           {"\"", false, "\""},
                           {"\"", true, "\""},
                           {"", true, ""},
                           {"W/\"", false, "\""},
                           {"W/\"", true, "\""}}) {
    for (const bool right : {true, false}) {
      peer_.set_script([&](const PeerRequest&) {
        return PeerPlan{.edit = [&](PeerAnswer& answer) {
          std::string md5 = md5_hex(Buffer::from(right ? "body" : "other"));
          if (form.upper)
            for (char& c : md5) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
          for (auto& [name, value] : answer.headers)
            if (name == "ETag") value = form.before + md5 + form.after;
        }};
      });
      objects_["p/x"] = "body";
      const auto put = [&] { store_->put("x", Buffer::from("body"), {}); };
      const auto get = [&] { EXPECT_EQ(store_->get("x", 10, {}).text(), "body"); };
      if (right) {
        EXPECT_NO_THROW(put());
        EXPECT_NO_THROW(get());
      } else {
        EXPECT_EQ(error_of(put).code(), Code::data_loss) << form.before << form.upper;
        EXPECT_EQ(error_of(get).code(), Code::data_loss) << form.before << form.upper;
      }
    }
  }
}

TEST_F(S3Trouble, KeysAreReadAgainWhenTheyAreRefused) {
  write("access", "old-key");
  write("token", "old-token");
  S3Settings& s3 = settings_.own.of<S3Settings>();
  s3.access_key.clear();
  s3.access_key_file = files_.path() / "access";
  s3.session_token_file = files_.path() / "token";
  open();
  // The server knows new ones from now on.
  std::atomic<unsigned> refused = 0;
  peer_.set_script([&](const PeerRequest& request) {
    const auto token = request.headers.find("x-amz-security-token");
    const std::string& authorization = request.headers.at("authorization");
    if (token != request.headers.end() && token->second == "new-token" &&
        authorization.find("Credential=new-key/") != std::string::npos &&
        authorization.find("x-amz-security-token") != std::string::npos)
      return PeerPlan{};
    ++refused;
    return PeerPlan{.instead = PeerAnswer{.status = 400, .body = refusal_of("ExpiredToken")}};
  });
  EXPECT_THAT(error_of([&] { store_->put("x", Buffer::from("x"), {}); }).what(), HasSubstr("4 tries in "));
  EXPECT_EQ(refused, 4U);
  write("access", "new-key");
  write("token", "new-token");
  store_->put("x", Buffer::from("x"), {});
  EXPECT_EQ(objects_["p/x"], "x");
  EXPECT_EQ(refused, 5U);
  store_->stat("x", {});
  EXPECT_EQ(refused, 5U);
}

TEST_F(S3Trouble, AnswersWithoutALengthAreAnswers) {
  objects_["p/x"] = "body";
  peer_.set_script([](const PeerRequest&) {
    return PeerPlan{.edit = [](PeerAnswer& answer) {
      std::erase_if(answer.headers, [](const auto& header) { return header.first == "Content-Length"; });
      answer.no_length = true;
    }};
  });
  EXPECT_EQ(store_->get("x", 10, {}).text(), "body");
  EXPECT_EQ(store_->stat("x", {})->size, 4U);
  EXPECT_FALSE(store_->stat("y", {}));
  EXPECT_EQ(listed(), "x");
}

}  // namespace
}  // namespace guestagent

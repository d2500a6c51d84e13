// Every kind of request × every fault, once and for ever: either the call succeeds and what it promises is
// so, or it throws a StoreError that fits. Never a success that is none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <iostream>

#include "fake_swift.h"
#include "storage/object_store.h"
#include "storage/stores.h"
#include "stream/digest.h"
#include "support/fake_clock.h"

namespace guestagent {
namespace {

enum class Kind { auth, auth_v3, put_segment, put_manifest, put_slo, get, remove, head, list };
constexpr std::pair<Kind, const char*> kKinds[] = {{Kind::auth, "auth"},
                                                   {Kind::auth_v3, "auth_v3"},
                                                   {Kind::put_segment, "put_segment"},
                                                   {Kind::put_manifest, "put_manifest"},
                                                   {Kind::put_slo, "put_slo"},
                                                   {Kind::get, "get"},
                                                   {Kind::remove, "delete"},
                                                   {Kind::head, "head"},
                                                   {Kind::list, "list"}};

struct FaultRow {
  std::string name;
  PeerPlan plan;
  bool passes;  // a single one is got over
  Code code;    // of one that stays
};

PeerPlan status(int code, std::vector<std::pair<std::string, std::string>> headers = {}) {
  return {.instead = PeerAnswer{.status = code, .headers = std::move(headers), .body = "scripted\n"}};
}

std::vector<FaultRow> faults() {
  const auto wrong_etag = [](PeerAnswer& answer) {
    for (auto& [name, value] : answer.headers) {
      if (name == "Etag") value = "0123456789abcdef0123456789abcdef";
    }
  };
  return {
      {"401", status(401), true, Code::permission_denied},
      {"403", status(403), false, Code::permission_denied},
      {"404", status(404), false, Code::not_found},
      {"408", status(408), true, Code::unavailable},
      {"413", status(413), false, Code::resource_exhausted},
      {"422", status(422), true, Code::data_loss},
      {"429", status(429, {{"Retry-After", "3"}}), true, Code::unavailable},
      {"498", status(498), true, Code::unavailable},
      {"499", status(499), true, Code::unavailable},
      {"500", status(500), true, Code::unavailable},
      {"502", status(502), true, Code::unavailable},
      {"503", status(503), true, Code::unavailable},
      {"507", status(507), true, Code::resource_exhausted},
      {"599", status(599), true, Code::unavailable},
      {"302", status(302, {{"Location", "http://127.0.0.1:9/"}}), false, Code::failed_precondition},
      {"206", status(206), true, Code::unavailable},
      {"refused", {}, true, Code::unavailable},
      {"reset in body", {.fault = PeerFault::reset_in_body}, true, Code::unavailable},
      {"reset after body", {.fault = PeerFault::reset_after_body}, true, Code::unavailable},
      {"closed", {.fault = PeerFault::close}, true, Code::unavailable},
      {"stall", {.fault = PeerFault::stall}, true, Code::unavailable},
      {"stall in answer", {.fault = PeerFault::stall_in_answer}, true, Code::unavailable},
      {"truncated", {.fault = PeerFault::truncate}, true, Code::unavailable},
      {"wrong ETag", {.edit = wrong_etag}, true, Code::data_loss},
      {"garbage", {.fault = PeerFault::garbage_headers}, true, Code::unavailable},
      {"endless headers", {.fault = PeerFault::endless_headers}, true, Code::unavailable},
      {"endless body", {.fault = PeerFault::endless_body}, false, Code::resource_exhausted},
      {"TLS", {}, true, Code::unavailable},
  };
}

std::string content(std::size_t size) {
  std::string out(size, 'a');
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  return out;
}

struct Case {
  Kind kind;
  FaultRow fault;
  bool stays;
};

bool is_of_kind(Kind kind, const PeerRequest& request) {
  const bool login = request.target.starts_with("/auth/") || request.target.starts_with("/v3/");
  switch (kind) {
    case Kind::auth:
    case Kind::auth_v3:
      return login;
    case Kind::put_slo:
      return request.query().starts_with("multipart-manifest=put");
    case Kind::list:
      return request.query().starts_with("format=json");
    default:
      return !login && request.target.starts_with("/v1/AUTH_test/c/p/id/x");
  }
}

// One case from its beginning to its end.
class CaseRun {
 public:
  explicit CaseRun(Case c) : case_(std::move(c)) {}
  void run();

 private:
  // What it says has happened is held against the server.
  void call() {
    switch (case_.kind) {
      case Kind::auth:
      case Kind::auth_v3:
      case Kind::put_segment:
      case Kind::put_manifest:
        store_->put("id/x", Buffer::from(sent_), {});
        EXPECT_EQ(swift_.object("id/x"), sent_);
        break;
      case Kind::put_slo:
        if (store_->join("id/x", {{"id/part", 9, {}}}, {})) {
          EXPECT_EQ(swift_.object("id/x"), "the parts");
        } else {
          ADD_FAILURE() << "join says that it cannot";
        }
        break;
      case Kind::get:
        EXPECT_EQ(store_->get("id/x", 100000, {}).text(), sent_);
        break;
      case Kind::remove:
        found_ = store_->remove("id/x", {});
        if (found_) {
          EXPECT_EQ(swift_.object("id/x"), std::nullopt);
        }
        break;
      case Kind::head: {
        const auto info = store_->stat("id/x", {});
        found_ = info.has_value();
        if (info) {
          EXPECT_EQ(info->size, sent_.size());
        }
        break;
      }
      case Kind::list: {
        std::vector<std::string> names;
        store_->list("id/", [&](const ObjectInfo& info) { names.push_back(info.name); }, {});
        found_ = !names.empty();
        if (found_) {
          EXPECT_THAT(names, testing::ElementsAre("id/part", "id/x"));
        }
        break;
      }
    }
  }

  // 404 is an answer to these.
  bool missing_ok() const {
    return case_.fault.name == "404" &&
           (case_.kind == Kind::remove || case_.kind == Kind::head || case_.kind == Kind::list);
  }

  void inject() {
    const Case& c = case_;
    if (c.fault.name == "refused") {
      swift_.peer().close_port();
      clock_.on_sleep([this, stays = c.stays] {
        if (!stays) swift_.peer().open_port();
      });
      return;
    }
    swift_.peer().set_script([this, c](const PeerRequest& request) {
      if (!is_of_kind(c.kind, request) || (!c.stays && injected_ > 0)) return PeerPlan{};
      ++injected_;
      return c.fault.plan;
    });
  }

  const Case case_;
  FakeSwift swift_;
  FakeClock clock_;
  std::string sent_;
  bool found_ = true;
  std::atomic<unsigned> injected_{0};
  std::unique_ptr<ObjectStore> store_;
};

void CaseRun::run() {
  const Case& c = case_;
  const bool auth = c.kind == Kind::auth || c.kind == Kind::auth_v3;
  const bool puts = auth || c.kind == Kind::put_segment || c.kind == Kind::put_manifest;
  StorageSettings settings = swift_.settings(c.kind == Kind::auth_v3 ? "v3" : "v1");
  sent_ = content(c.kind == Kind::put_segment ? 3 << 20 : 5000);
  swift_.put_object("id/part", "the parts");
  if (!puts && c.kind != Kind::put_slo) swift_.put_object("id/x", sent_);
  if (c.fault.name == "TLS") {
    // A server that does not speak TLS where TLS was promised.
    const std::string https = "https" + swift_.peer().url().substr(4);
    if (auth)
      settings.swift.auth_url = https;
    else
      swift_.set_storage_url(https + "/v1/AUTH_test");
  }
  store_ = make_store(settings, clock_);
  if (!auth && c.fault.name != "TLS") store_->stat("id/other", {});  // logged in, with a kept connection
  inject();

  std::optional<StoreError> error;
  try {
    call();
  } catch (const StoreError& e) {
    error = e;
  }

  // The one fault of its kind that means success: what cannot be wrong there is not looked at.
  const bool no_etag = c.kind != Kind::put_segment && c.kind != Kind::put_manifest && c.kind != Kind::get;
  const bool harmless =
      (c.fault.name == "wrong ETag" && no_etag) ||
      ((c.fault.name == "endless body" || c.fault.name == "truncated") && c.kind == Kind::remove);
  bool passes = (c.fault.passes && !c.stays) || missing_ok() || harmless;
  Code code = c.fault.code;
  const bool puts_object = c.kind == Kind::put_segment || c.kind == Kind::put_manifest;
  if (puts_object && c.fault.name == "404") {
    passes = !c.stays;  // the container is made, and that the object is still refused is taken for a delay
    code = Code::unavailable;
  }
  if (auth && c.fault.name == "401") passes = false;  // of a first login: a wrong key
  if (c.fault.name == "TLS") passes = false;
  if (c.fault.name == "endless body" && c.kind == Kind::head) {
    passes = !c.stays;  // an answer without a length
    code = Code::unavailable;
  }
  if (passes) {
    EXPECT_FALSE(error) << error->what();
    EXPECT_EQ(found_, !missing_ok());
  } else {
    ASSERT_TRUE(error) << "a success that is none";
    EXPECT_EQ(error->code(), code) << error->what();
    EXPECT_FALSE(error->brief().empty()) << error->what();
    EXPECT_EQ(std::string(error->what() + error->hint()).find(kFakeKey), std::string::npos);
    if (c.fault.passes && !(auth && c.fault.name == "401") && !(c.fault.name == "401")) {
      EXPECT_THAT(error->what(), testing::HasSubstr(": 4 tries in ")) << "not tried again";
    }
  }
  if (c.fault.name != "refused" && c.fault.name != "TLS") {
    EXPECT_GT(injected_, 0U);
  }
  if (c.fault.name == "429" && !c.stays) {
    EXPECT_GE(clock_.slept().at(0), Millis(3000));
  }
}

class FaultMatrix : public testing::TestWithParam<std::pair<Kind, const char*>> {};

TEST_P(FaultMatrix, SucceedsOrSaysWhy) {
  const auto [kind, name] = GetParam();
  unsigned cases = 0;
  for (const FaultRow& fault : faults()) {
    for (const bool stays : {false, true}) {
      SCOPED_TRACE(std::string(name) + ", " + fault.name + (stays ? ", for ever" : ", once"));
      CaseRun({kind, fault, stays}).run();
      ++cases;
    }
  }
  std::cout << "fault matrix of " << name << ": " << cases << " cases\n";
}

INSTANTIATE_TEST_SUITE_P(All, FaultMatrix, testing::ValuesIn(kKinds),
                         [](const auto& chosen) { return std::string(chosen.param.second); });

}  // namespace
}  // namespace guestagent

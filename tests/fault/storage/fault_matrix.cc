#include "fault_matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "fault_table.h"
#include "storage/object_store.h"
#include "storage/stores.h"
#include "storage/swift/settings.h"
#include "support/fake_clock.h"

namespace guestagent {
namespace {

struct Case {
  RequestKind kind;
  FaultRow fault;
  bool stays;
};

bool is_of_kind(RequestKind kind, const PeerRequest& request) {
  const bool login = request.target.starts_with("/auth/") || request.target.starts_with("/v3/");
  switch (kind) {
    case RequestKind::auth:
    case RequestKind::auth_v3:
      return login;
    case RequestKind::put_slo:
      return request.query().starts_with("multipart-manifest=put");
    case RequestKind::list:
      return request.query().starts_with("format=json");
    default:
      return !login && request.path().ends_with("/id/x");
  }
}

// One case from its beginning to its end.
class CaseRun {
 public:
  CaseRun(Case c, std::unique_ptr<SwiftUnderTest> swift) : case_(std::move(c)), swift_(std::move(swift)) {}
  // False when a call said that it succeeded, and had not.
  bool run();

 private:
  // Whether what it says has happened is so on the server.
  bool call() {
    switch (case_.kind) {
      case RequestKind::auth:
      case RequestKind::auth_v3:
      case RequestKind::put_segment:
      case RequestKind::put_manifest:
        store_->put("id/x", Buffer::from(sent_), {});
        return swift_->object("id/x") == sent_;
      case RequestKind::put_slo:
        return store_->join("id/x", {{"id/part", 9, {}}}, {}) && swift_->object("id/x") == "the parts";
      case RequestKind::get:
        return store_->get("id/x", 100000, {}).text() == sent_;
      case RequestKind::remove:
        found_ = store_->remove("id/x", {});
        return !found_ || !swift_->object("id/x");
      case RequestKind::head: {
        const auto info = store_->stat("id/x", {});
        found_ = info.has_value();
        return !info || info->size == sent_.size();
      }
      case RequestKind::list: {
        std::vector<std::string> names;
        store_->list("id/", [&](const ObjectInfo& info) { names.push_back(info.name); }, {});
        found_ = !names.empty();
        return !found_ || names == std::vector<std::string>{"id/part", "id/x"};
      }
    }
    return false;
  }

  // 404 is an answer to these.
  bool missing_ok() const {
    return case_.fault.name == "404" && (case_.kind == RequestKind::remove || case_.kind == RequestKind::head ||
                                         (case_.kind == RequestKind::list && case_.stays));  // asked twice
  }

  void inject() {
    const Case& c = case_;
    if (c.fault.name == "refused") {
      swift_->peer().close_port();
      clock_.on_sleep([this, stays = c.stays] {
        if (!stays) swift_->peer().open_port();
      });
      return;
    }
    swift_->peer().set_script([this, c](const PeerRequest& request) {
      if (!is_of_kind(c.kind, request) || (!c.stays && injected_ > 0)) return PeerPlan{};
      ++injected_;
      return c.fault.plan;
    });
  }

  const Case case_;
  const std::unique_ptr<SwiftUnderTest> swift_;
  FakeClock clock_;
  std::string sent_;
  bool found_ = true;
  std::atomic<unsigned> injected_{0};
  std::unique_ptr<ObjectStore> store_;
};

bool CaseRun::run() {
  const Case& c = case_;
  const bool auth = c.kind == RequestKind::auth || c.kind == RequestKind::auth_v3;
  const bool puts = auth || c.kind == RequestKind::put_segment || c.kind == RequestKind::put_manifest;
  StorageSettings settings = swift_->settings(c.kind == RequestKind::auth_v3 ? "v3" : "v1");
  if (c.fault.name.starts_with("stall")) settings.timeouts.stall = std::min(settings.timeouts.stall, kStallTold);
  sent_ = fault_content(c.kind == RequestKind::put_segment ? 3 << 20 : 5000);
  swift_->put_object("id/part", "the parts");
  if (!puts && c.kind != RequestKind::put_slo) swift_->put_object("id/x", sent_);
  if (c.fault.name == "TLS") {
    // A server that does not speak TLS where TLS was promised.
    const std::string https = "https" + swift_->peer().url().substr(4);
    if (auth)
      settings.own.of<SwiftSettings>().auth_url = https;
    else
      swift_->set_storage_url(https + "/v1/AUTH_test");
  }
  store_ = make_store(settings, clock_);
  if (!auth && c.fault.name != "TLS") store_->stat("id/other", {});  // logged in, with a kept connection
  inject();

  std::optional<StoreError> error;
  bool kept = true;
  try {
    kept = call();
  } catch (const StoreError& e) {
    error = e;
  }

  // The one fault of its kind that means success: what cannot be wrong there is not looked at.
  const bool no_etag =
      c.kind != RequestKind::put_segment && c.kind != RequestKind::put_manifest && c.kind != RequestKind::get;
  const bool harmless =
      (c.fault.name == "wrong ETag" && no_etag) ||
      ((c.fault.name == "endless body" || c.fault.name == "truncated") && c.kind == RequestKind::remove);
  const bool list_again = c.fault.name == "404" && c.kind == RequestKind::list && !c.stays;
  bool passes = (c.fault.passes && !c.stays) || missing_ok() || list_again || harmless;
  Code code = c.fault.code;
  const bool puts_object = c.kind == RequestKind::put_segment || c.kind == RequestKind::put_manifest;
  if (puts_object && c.fault.name == "404") {
    passes = !c.stays;  // the container is made, and that the object is still refused is taken for a delay
    code = Code::unavailable;
  }
  if (auth && c.fault.name == "401") passes = false;  // of a first login: a wrong key
  // A login's trouble is not that of an object.
  if (auth && (code == Code::not_found || code == Code::resource_exhausted || code == Code::data_loss))
    code = c.fault.passes ? Code::unavailable : Code::failed_precondition;
  if (c.fault.name == "endless body" && c.kind == RequestKind::head) passes = !c.stays;  // an answer without a length
  EXPECT_TRUE(kept) << "it says that it did what it did not";
  if (passes) {
    EXPECT_FALSE(error) << error->what();
    if (!error) {
      kept = kept && found_ == !missing_ok();
      EXPECT_EQ(found_, !missing_ok());
    }
  } else if (!error) {
    ADD_FAILURE() << "a success that is none";
    kept = false;
  } else {
    EXPECT_EQ(error->code(), code) << error->what();
    EXPECT_FALSE(error->brief().empty()) << error->what();
    EXPECT_EQ(std::string(error->what() + error->hint()).find(swift_->key()), std::string::npos);
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
  return kept;
}

}  // namespace

FaultCount run_fault_matrix(NamedKind kind, const std::function<std::unique_ptr<SwiftUnderTest>()>& make) {
  FaultCount count;
  for (const FaultRow& fault : fault_table()) {
    for (const bool stays : {false, true}) {
      SCOPED_TRACE(std::string(kind.name) + ", " + fault.name + (stays ? ", for ever" : ", once"));
      ++count.cases;
      if (!CaseRun({kind.kind, fault, stays}, make()).run()) ++count.false_successes;
    }
  }
  return count;
}

}  // namespace guestagent

// With a real Keystone, short tokens and TLS: tests/lab/swift.py run --keystone --tls --token-life 12
#include <gmock/gmock.h>

#include <thread>

#include "../storage/object_store_suite.h"
#include "lab.h"
#include "storage/stores.h"
#include "storage/swift/settings.h"

namespace guestagent {
namespace {

StoreUnderTest store_of(const LabSettings& settings) {
  return {settings.files, make_store(settings.storage, system_clock())};
}

StoreUnderTest by_password() {
  return store_of(lab_swift());
}

LabSettings with_application_credential() {
  LabSettings out = lab_swift();
  SwiftSettings& s = out.storage.own.of<SwiftSettings>();
  s.user = s.project = "";
  s.key_file.clear();
  s.application_credential_id = lab("APPLICATION_CREDENTIAL_ID");
  s.application_credential_secret_file = out.secret("app", lab("APPLICATION_CREDENTIAL_SECRET"));
  return out;
}

StoreUnderTest by_application() {
  return store_of(with_application_credential());
}

INSTANTIATE_TEST_SUITE_P(Keystone, ObjectStoreContract,
                         testing::Values(StoreKind{"password", by_password, true},
                                         StoreKind{"application_credential", by_application, true}),
                         kind_name);

Code code_of_put(const LabSettings& settings) {
  const auto store = make_store(settings.storage, system_clock());
  try {
    store->put("x", Buffer::from("x"), {});
  } catch (const StoreError& e) {
    EXPECT_EQ((e.what() + e.hint()).find(lab("SWIFT_KEY")), std::string::npos);
    return e.code();
  }
  ADD_FAILURE() << "put succeeded";
  return Code::internal;
}

TEST(KeystoneTest, ARunLongerThanItsTokens) {
  const LabSettings settings = lab_swift();
  const auto store = make_store(settings.storage, system_clock());
  const auto life = Seconds(std::stoi(lab("SWIFT_TOKEN_LIFE")));
  ASSERT_LE(life, Seconds(60)) << "run the lab with short tokens";
  const SteadyTime end = system_clock().steady() + life * 5 / 2;
  unsigned count = 0;
  for (; system_clock().steady() < end; ++count) {
    store->put("n/" + std::to_string(count % 10), test_bytes(100000, count), {});
    std::this_thread::sleep_for(Millis(100));
  }
  EXPECT_GT(count, 10U);
  for (unsigned i = 0; i < 10; ++i) EXPECT_TRUE(store->remove("n/" + std::to_string(i), {}));
}

TEST(KeystoneTest, WhatItDoesNotKnowIsRefused) {
  LabSettings settings = lab_swift();
  settings.storage.own.of<SwiftSettings>().key_file = settings.secret("wrong", "not-the-key");
  EXPECT_EQ(code_of_put(settings), Code::permission_denied);
  settings = lab_swift();
  settings.storage.own.of<SwiftSettings>().project = "no-such-project";
  EXPECT_EQ(code_of_put(settings), Code::permission_denied);
  settings = lab_swift();
  settings.storage.own.of<SwiftSettings>().region = "NoSuchRegion";
  EXPECT_EQ(code_of_put(settings), Code::failed_precondition);
}

TEST(KeystoneTest, RegionAndInterfaceChooseTheEndpoint) {
  LabSettings settings = lab_swift();
  settings.storage.own.of<SwiftSettings>().interface = "internal";
  EXPECT_EQ(make_store(settings.storage, system_clock())->href("x").substr(0, 18), "https://localhost:");
  SwiftSettings& swift = settings.storage.own.of<SwiftSettings>();
  swift.interface = "public";
  swift.region = "RegionTwo";
  EXPECT_EQ(make_store(settings.storage, system_clock())->href("x").substr(0, 18), "http://127.0.0.1:9");
}

TEST(KeystoneTlsTest, AnUnknownCertificateIsRefused) {
  LabSettings settings = lab_swift();
  settings.storage.own.of<SwiftSettings>().tls = {};
  EXPECT_EQ(code_of_put(settings), Code::permission_denied);
}

TEST(KeystoneTlsTest, UnlessToldNotToCare) {
  LabSettings settings = lab_swift();
  settings.storage.own.of<SwiftSettings>().tls = {.ca_file = {}, .insecure = true};
  const auto store = make_store(settings.storage, system_clock());
  store->put("x", Buffer::from("x"), {});
  EXPECT_TRUE(store->remove("x", {}));
}

}  // namespace
}  // namespace guestagent

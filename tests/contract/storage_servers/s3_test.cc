#include <gmock/gmock.h>

#include "../storage/object_store_suite.h"
#include "lab.h"
#include "storage/stores.h"

namespace guestagent {
namespace {

LabSettings lab_s3() {
  LabSettings out;
  StorageSettings& s = out.storage;
  s.store = "s3";
  s.container = "contract-" + random_hex(6);
  s.prefix = "a/prefix";
  s.s3.endpoint = lab("S3_ENDPOINT");
  s.s3.region = lab("S3_REGION");
  s.s3.access_key = lab("S3_ACCESS_KEY");
  s.s3.secret_key_file = out.secret("secret", lab("S3_SECRET_KEY"));
  s.s3.tls.ca_file = lab("SWIFT_CA_FILE");
  return out;
}

StoreUnderTest by_key() {
  const LabSettings settings = lab_s3();
  return {settings.files, make_store(settings.storage, system_clock())};
}

INSTANTIATE_TEST_SUITE_P(S3, ObjectStoreContract, testing::Values(StoreKind{"path_style", by_key}),
                         kind_name);

TEST(S3StoreTest, AWrongSecretIsRefusedAndNotTold) {
  LabSettings settings = lab_s3();
  settings.storage.s3.secret_key_file = settings.secret("wrong", "not-the-secret");
  const auto store = make_store(settings.storage, system_clock());
  try {
    store->put("x", Buffer::from("x"), {});
    FAIL();
  } catch (const StoreError& e) {
    EXPECT_EQ(e.code(), Code::permission_denied) << e.what();
    EXPECT_THAT(e.what(), testing::HasSubstr("SignatureDoesNotMatch"));
    EXPECT_THAT(std::string(e.what()) + e.hint(), testing::Not(testing::HasSubstr("not-the-secret")));
  }
}

TEST(S3StoreTest, NothingIsJoined) {
  const LabSettings settings = lab_s3();
  const auto store = make_store(settings.storage, system_clock());
  store->put("part", Buffer::from("abc"), {});
  EXPECT_FALSE(store->join("whole", {{"part", 3, {}}}, {}));
  EXPECT_FALSE(store->stat("whole", {}));
  EXPECT_TRUE(store->remove("part", {}));
}

TEST(S3StoreTest, AddressesAreOfBucketAndKey) {
  LabSettings settings = lab_s3();
  const std::string bucket = settings.storage.container;
  EXPECT_EQ(make_store(settings.storage, system_clock())->href("x"),
            lab("S3_ENDPOINT") + "/" + bucket + "/a/prefix/x");
  settings.storage.s3.path_style = false;
  settings.storage.s3.endpoint = "https://s3.example.com";
  const auto store = make_store(settings.storage, system_clock());
  EXPECT_EQ(store->href("x"), "https://" + bucket + ".s3.example.com/a/prefix/x");
  EXPECT_EQ(store->name_of("https://" + bucket + ".s3.example.com/a/prefix/x"), "x");
}

}  // namespace
}  // namespace guestagent

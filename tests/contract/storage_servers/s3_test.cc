#include <gmock/gmock.h>

#include "../storage/object_store_suite.h"
#include "lab.h"
#include "storage/s3/settings.h"
#include "storage/stores.h"

namespace guestagent {
namespace {

LabSettings lab_s3() {
  LabSettings out;
  StorageSettings& s = out.storage;
  s.store = "s3";
  s.container = "contract-" + random_hex(6);
  s.prefix = "a/prefix";
  S3Settings& s3 = s.own.of<S3Settings>();
  s3.endpoint = lab("S3_ENDPOINT");
  s3.region = lab("S3_REGION");
  s3.access_key = lab("S3_ACCESS_KEY");
  s3.secret_key_file = out.secret("secret", lab("S3_SECRET_KEY"));
  s3.tls.ca_file = lab("SWIFT_CA_FILE");
  return out;
}

StoreUnderTest by_key() {
  const LabSettings settings = lab_s3();
  return {settings.files, make_store(settings.storage, system_clock())};
}

INSTANTIATE_TEST_SUITE_P(S3, ObjectStoreContract, testing::Values(StoreKind{"path_style", by_key}), kind_name);

TEST(S3StoreTest, AWrongSecretIsRefusedAndNotTold) {
  LabSettings settings = lab_s3();
  settings.storage.own.of<S3Settings>().secret_key_file = settings.secret("wrong", "not-the-secret");
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

// A HEAD, whose answer has no body: what is wrong is asked for.
TEST(S3StoreTest, TheFirstRequestIsToldWhatIsWrong) {
  struct Row {
    std::function<void(LabSettings&)> spoil;
    const char* words;
    const char* hint;
  };
  for (const Row& row : {
           Row{[](LabSettings& s) {
                 s.storage.own.of<S3Settings>().secret_key_file = s.secret("wrong", "not-the-secret");
               },
               "SignatureDoesNotMatch", "secret_key_file"},
           Row{[](LabSettings& s) { s.storage.own.of<S3Settings>().access_key = "test:nobody"; }, "", "access_key"},
           Row{[](LabSettings& s) { s.storage.own.of<S3Settings>().region = "eu-central-1"; },
               "is in us-east-1, not in eu-central-1", "storage.s3.region to us-east-1"},
           Row{[](LabSettings& s) { s.storage.container = "No_Bucket"; }, "InvalidBucketName", "storage.container"},
       }) {
    LabSettings settings = lab_s3();
    row.spoil(settings);
    const auto store = make_store(settings.storage, system_clock());
    try {
      store->stat("x", {});
      FAIL() << row.words;
    } catch (const StoreError& e) {
      EXPECT_THAT(e.what(), testing::HasSubstr(row.words));
      EXPECT_THAT(e.hint(), testing::HasSubstr(row.hint)) << e.what();
    }
  }
}

TEST(S3StoreTest, AClockThatIsWrongIsSaid) {
  class OtherClock : public Clock {
   public:
    WallTime now() const override { return system_clock().now() - std::chrono::hours(2); }
    SteadyTime steady() const override { return system_clock().steady(); }
    bool sleep(Millis duration, std::stop_token stop) override {
      return system_clock().sleep(duration, std::move(stop));
    }
  } clock;
  const LabSettings settings = lab_s3();
  const auto store = make_store(settings.storage, clock);
  try {
    store->stat("x", {});
    FAIL();
  } catch (const StoreError& e) {
    EXPECT_EQ(e.code(), Code::permission_denied) << e.what();
    EXPECT_THAT(e.hint(), testing::HasSubstr("clock"));
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
  EXPECT_EQ(make_store(settings.storage, system_clock())->href("x"), lab("S3_ENDPOINT") + "/" + bucket + "/a/prefix/x");
  S3Settings& s3 = settings.storage.own.of<S3Settings>();
  s3.path_style = false;
  s3.endpoint = "https://s3.example.com";
  const auto store = make_store(settings.storage, system_clock());
  EXPECT_EQ(store->href("x"), "https://" + bucket + ".s3.example.com/a/prefix/x");
  EXPECT_EQ(store->name_of("https://" + bucket + ".s3.example.com/a/prefix/x"), "x");
}

}  // namespace
}  // namespace guestagent

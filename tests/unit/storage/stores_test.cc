#include "storage/stores.h"

#include <gmock/gmock.h>

#include <functional>

#include "storage/local/settings.h"
#include "storage/s3/settings.h"
#include "storage/swift/settings.h"

namespace guestagent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> keys_named_by(const StoreNeeds& needs) {
  std::vector<std::string> out;
  for (const StoreNeeds::File& file : needs.files) out.push_back(file.key + (file.secret ? " secret" : ""));
  return out;
}

TEST(Stores, OneThatNobodyKnowsIsRefusedWithThoseThatThereAre) {
  StorageSettings settings;
  settings.store = "floppy";
  for (const auto& ask : std::vector<std::function<void()>>{[&] { make_store(settings, system_clock()); },
                                                            [&] { describe_store(settings); }}) {
    try {
      ask();
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::invalid_argument);
      EXPECT_THAT(e.hint(), HasSubstr("local, swift, s3"));
    }
  }
}

TEST(Stores, EachNamesItsFilesOnly) {
  StorageSettings settings;
  SwiftSettings& swift = settings.own.of<SwiftSettings>();
  swift.key_file = "/k";
  swift.application_credential_secret_file = "/a";
  swift.token_file = "/t";
  swift.tls = {"/ca", true};
  S3Settings& s3 = settings.own.of<S3Settings>();
  s3.access_key_file = "/ak";
  s3.secret_key_file = "/sk";
  s3.session_token_file = "/st";
  settings.own.of<LocalStoreSettings>().path = "/srv";

  const StoreNeeds local = describe_store(settings);
  EXPECT_THAT(keys_named_by(local), ElementsAre());
  EXPECT_EQ(local.place.value().key, "storage.local.path");
  EXPECT_EQ(local.place.value().path, "/srv");

  settings.store = "swift";
  EXPECT_THAT(keys_named_by(describe_store(settings)),
              ElementsAre("storage.swift.key_file secret", "storage.swift.application_credential_secret_file secret",
                          "storage.swift.token_file secret", "storage.swift.tls.ca_file"));
  EXPECT_FALSE(describe_store(settings).place);
  EXPECT_THAT(describe_store(settings).warnings, ElementsAre(HasSubstr("storage.swift.tls.insecure is set")));

  settings.store = "s3";
  EXPECT_THAT(keys_named_by(describe_store(settings)),
              ElementsAre("storage.s3.access_key_file secret", "storage.s3.secret_key_file secret",
                          "storage.s3.session_token_file secret"));
  EXPECT_THAT(describe_store(settings).warnings, ElementsAre());
}

}  // namespace
}  // namespace guestagent

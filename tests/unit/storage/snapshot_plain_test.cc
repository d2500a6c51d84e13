// A host that encrypts does not take what is not encrypted in an encrypted snapshot's place.
#include <gmock/gmock.h>

#include "tests/support/snapshot_fixture.h"

namespace guestagent {
namespace {

using test::error_of;
using test::page_bytes;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class PlainInItsPlace : public test::SnapshotFixture {
 protected:
  PlainInItsPlace() {
    use_key("k1", 'a');
    write(bytes_);
    encrypted_ = store.copy();
    store.reset();
    // The same, made by somebody who has no key.
    settings.encryption.write_key.clear();
    write(bytes_);
    plain_ = store.copy();
    settings.encryption.write_key = "k1";
  }

  const std::string bytes_ = page_bytes(5 * kSegment, 1);
  std::unique_ptr<test::MemoryStore> encrypted_, plain_;
};

TEST_F(PlainInItsPlace, IsRefusedByWhoHasAKeyToWriteWith) {
  EXPECT_EQ(read(*encrypted_), bytes_);
  const Error error = error_of([&] { read(*plain_, "snap", job); });
  EXPECT_EQ(error.code(), Code::failed_precondition);
  EXPECT_THAT(error.what(),
              HasSubstr("the snapshot is not encrypted, but this host has snapshot.encryption.write_key"));
  EXPECT_THAT(error.hint(), HasSubstr("allow_plain"));
  EXPECT_EQ(
      test::code_of([&] { verify_snapshot(*plain_, plain_->href("snap/manifest.json"), settings, throttle, job); }),
      "FAILED_PRECONDITION");
}

TEST_F(PlainInItsPlace, IsReadWhereThatIsAllowedOrNothingIsEncrypted) {
  settings.encryption.allow_plain = true;
  EXPECT_EQ(read(*plain_), bytes_);
  EXPECT_EQ(read(*encrypted_), bytes_);
  settings.encryption.allow_plain = false;
  settings.encryption.write_key.clear();
  EXPECT_EQ(read(*plain_), bytes_);
  EXPECT_EQ(read(*encrypted_), bytes_) << "a key to read with is enough";
}

TEST_F(PlainInItsPlace, AnyKnownKeyWillDo) {
  use_key("k2", 'b');
  EXPECT_EQ(read(*encrypted_), bytes_) << "keys change, and old snapshots are read";
  const VerifyResult result =
      verify_snapshot(*encrypted_, encrypted_->href("snap/manifest.json"), settings, throttle, job);
  EXPECT_EQ(result.encryption_key, "k1");
}

TEST_F(PlainInItsPlace, NorAnyPartOfIt) {
  for (const char* name : {"snap/segment-00000001", "snap/segment-00000003", "snap/index-000001.json"}) {
    const auto mixed = encrypted_->copy();
    mixed->set(name, plain_->text(name));
    EXPECT_THAT(reading_fails_with(*mixed), StartsWith("DATA_LOSS: ")) << name;
  }
  // The plain one with the words of the encrypted one, and without what only the key can make.
  const std::string good = encrypted_->text("snap/manifest.json");
  const std::string hmac = good.substr(good.rfind(",\"hmac\""));
  const std::string key = R"({"algorithm":"AES-256-GCM","key":"k1"})";
  std::string claims_to_be = plain_->text("snap/manifest.json");
  claims_to_be.replace(claims_to_be.find("\"encryption\":null") + 13, 4, key);
  const struct {
    const char* what;
    std::string manifest;
  } kForged[] = {
      {"without hmac", good.substr(0, good.size() - hmac.size()) + "}"},
      {"with an empty hmac", good.substr(0, good.size() - hmac.size()) + R"(,"hmac":""})"},
      {"the plain one that names a key", claims_to_be},
      {"the plain one with the other's hmac", claims_to_be.substr(0, claims_to_be.rfind(",\"checksum\"")) + hmac},
  };
  for (const auto& forged : kForged) {
    const auto changed = plain_->copy();
    changed->set("snap/manifest.json", forged.manifest);
    EXPECT_THAT(reading_fails_with(*changed), StartsWith("DATA_LOSS: ")) << forged.what;
  }
  std::string no_encryption = claims_to_be;
  no_encryption.erase(no_encryption.find("\"encryption\":"), 14 + key.size());
  const auto changed = plain_->copy();
  changed->set("snap/manifest.json", no_encryption);
  EXPECT_THAT(reading_fails_with(*changed), StartsWith("DATA_LOSS: ")) << "without the member";
}

}  // namespace
}  // namespace guestagent

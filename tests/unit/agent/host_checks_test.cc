#include "agent/host_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/memory_store.h"

namespace guestagent {
namespace {

using testing::HasSubstr;

// A store whose clock, or whose word, is wrong.
class OddStore : public test::MemoryStore {
 public:
  std::chrono::seconds ahead{0};
  bool forgets = false;
  std::optional<ObjectInfo> stat(std::string_view name, std::stop_token stop) override {
    auto info = test::MemoryStore::stat(name, stop);
    if (forgets) return std::nullopt;
    if (info) info->modified = std::chrono::system_clock::now() + ahead;
    return info;
  }
};

std::size_t objects_in(ObjectStore& store) {
  std::size_t count = 0;
  store.list("", [&](const ObjectInfo&) { ++count; }, {});
  return count;
}

TEST(HostChecks, StoreRoundTripLeavesNothing) {
  OddStore store;
  const std::vector<Check> checks = check_store_round_trip({}, store);
  ASSERT_EQ(checks.size(), 2U);
  EXPECT_EQ(checks[0].result, Check::Result::ok) << checks[0].message;
  EXPECT_EQ(checks[1].result, Check::Result::ok) << checks[1].message;
  EXPECT_EQ(objects_in(store), 0U);
}

TEST(HostChecks, StoreThatForgetsIsDataLoss) {
  OddStore store;
  store.forgets = true;
  const std::vector<Check> checks = check_store_round_trip({}, store);
  EXPECT_EQ(checks[0].result, Check::Result::failed);
  EXPECT_EQ(checks[0].code, Code::data_loss);
  EXPECT_FALSE(checks[0].hint.empty());
  EXPECT_EQ(checks[1].result, Check::Result::skipped);
  EXPECT_EQ(objects_in(store), 0U);
}

TEST(HostChecks, StoresClockIsHeldAgainstThisHosts) {
  OddStore store;
  store.ahead = std::chrono::seconds(60);
  EXPECT_EQ(check_store_round_trip({}, store)[1].result, Check::Result::warning);
  store.ahead = std::chrono::seconds(-3600);
  const Check behind = check_store_round_trip({}, store)[1];
  EXPECT_EQ(behind.result, Check::Result::failed);
  EXPECT_THAT(behind.message, HasSubstr("behind this host"));
}

TEST(HostChecks, SecretFilesMustBeClosedAndThere) {
  const TempDir dir(fs::temp_directory_path(), "doctor-");
  write_file_atomic(dir.path() / "open", "secret\n", 0644);
  write_file_atomic(dir.path() / "closed", "secret\n", 0600);
  Settings settings;
  settings.mysql.password_file = dir.path() / "open";
  settings.storage.store = "s3";
  settings.storage.s3.secret_key_file = dir.path() / "closed";
  settings.snapshot.encryption.keys = {{"2026", dir.path() / "nowhere"}};
  const std::vector<Check> checks = check_named_files(settings);
  ASSERT_EQ(checks.size(), 3U);
  EXPECT_EQ(checks[0].result, Check::Result::failed);
  EXPECT_THAT(checks[0].message, HasSubstr("mysql.password_file"));
  EXPECT_EQ(checks[0].code, Code::permission_denied);
  EXPECT_EQ(checks[1].result, Check::Result::ok) << checks[1].message;
  EXPECT_EQ(checks[2].code, Code::not_found);
  for (const Check& check : checks) EXPECT_EQ(check.message.find("secret\n"), std::string::npos);
}

TEST(HostChecks, TooLittleSpaceForAnotherCopyIsTold) {
  const TempDir dir(fs::temp_directory_path(), "doctor-");
  Settings settings;
  settings.agent.state_dir = settings.mysql.data_dir = settings.snapshot.spill.dir = settings.storage.local.path = dir.path();
  settings.snapshot.spill.keep_free_bytes = UINT64_MAX / 2;
  ServerDescription server;
  server.data_bytes = UINT64_MAX / 4;
  std::vector<std::string> warned;
  for (const Check& check : check_space(settings, server)) {
    if (check.result == Check::Result::warning) warned.push_back(check.name);
  }
  EXPECT_THAT(warned, testing::ElementsAre("space for data", "space for spill", "space for copies"));
}

TEST(HostChecks, AnUnknownServerUserIsNamed) {
  Settings settings;
  settings.mysql.os_user = "nobody-at-all";
  EXPECT_THAT(check_own_rights(settings)[0].message, HasSubstr("nobody-at-all"));
}

}  // namespace
}  // namespace guestagent

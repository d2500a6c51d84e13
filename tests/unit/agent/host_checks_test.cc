#include "agent/host_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/local/settings.h"
#include "storage/s3/settings.h"
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
  settings.storage.own.of<S3Settings>().secret_key_file = dir.path() / "closed";
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
  settings.agent.state_dir = settings.mysql.data_dir = settings.snapshot.spill.dir =
      settings.storage.own.of<LocalStoreSettings>().path = dir.path();
  settings.snapshot.spill.keep_free_bytes = UINT64_MAX / 2;
  ServerDescription server;
  server.data_bytes = UINT64_MAX / 4;
  std::vector<std::string> warned;
  for (const Check& check : check_space(settings, server)) {
    if (check.result == Check::Result::warning) warned.push_back(check.name);
  }
  EXPECT_THAT(warned, testing::ElementsAre("space for data", "space for spill", "space for copies"));
}

// However it gets there: by name, by links of each side, by a link to what is not made yet.
TEST(HostChecks, PlacesInTheDataDirectoryAreRefused) {
  const TempDir dir(fs::temp_directory_path(), "doctor-");
  const fs::path base = dir.path();
  const fs::path data = base / "data";
  fs::create_directories(data / "below");
  fs::create_directories(base / "elsewhere");
  fs::create_symlink(data, base / "link");
  fs::create_symlink(data / "below", base / "link below");
  fs::create_symlink("data", base / "relative");
  fs::create_symlink(base / "link", base / "link to link");
  fs::create_symlink(base / "elsewhere", data / "out");
  const auto check = [&](const fs::path& data_dir, const std::function<void(Settings&)>& change) {
    Settings settings;
    settings.mysql.data_dir = data_dir;
    settings.agent.state_dir = base / "state";
    settings.snapshot.spill.dir = base / "spill";
    settings.storage.own.of<LocalStoreSettings>().path = base / "store";
    settings.mysql.managed_file = base / "zz.cnf";
    change(settings);
    return check_places_apart(settings);
  };
  for (const fs::path& data_dir : {data, base / "link", base / "relative"}) {
    EXPECT_EQ(check(data_dir, [](Settings&) {}).result, Check::Result::ok);
    for (const fs::path& in :
         {data, data / "new", base / "link", base / "link" / "store", base / "link to link" / "a" / "b",
          base / "link below" / "store", base / "relative" / "store", base / "elsewhere" / ".." / "data" / "x"}) {
      const std::pair<const char*, std::function<void(Settings&)>> kPlaces[] = {
          {"agent.state_dir", [&](Settings& s) { s.agent.state_dir = in; }},
          {"snapshot.spill.dir", [&](Settings& s) { s.snapshot.spill.dir = in; }},
          {"storage.local.path", [&](Settings& s) { s.storage.own.of<LocalStoreSettings>().path = in; }},
          {"mysql.managed_file", [&](Settings& s) { s.mysql.managed_file = in; }},
          {"mysql.staging_dir", [&](Settings& s) { s.mysql.staging_dir = in; }},
      };
      for (const auto& [key, change] : kPlaces) {
        const Check refused = check(data_dir, change);
        EXPECT_EQ(refused.result, Check::Result::failed) << key << " " << in;
        EXPECT_EQ(refused.code, Code::failed_precondition);
        EXPECT_THAT(refused.message, HasSubstr(key));
      }
    }
    // Out of it again, by a link; beside it, by a name that begins the same.
    for (const fs::path& out : {data / "out" / "store", base / "data.guestagent", base / "elsewhere"}) {
      EXPECT_EQ(check(data_dir, [&](Settings& s) { s.storage.own.of<LocalStoreSettings>().path = out; }).result,
                Check::Result::ok)
          << out;
    }
    EXPECT_EQ(check(data_dir, [&](Settings& s) { s.mysql.staging_dir = base; }).result, Check::Result::failed)
        << "around it";
    EXPECT_EQ(check(data_dir,
                    [&](Settings& s) {
                      s.storage.store = "swift";
                      s.storage.own.of<LocalStoreSettings>().path = data;
                      s.snapshot.spill.dir = data;
                      s.snapshot.spill.max_bytes = 0;
                    })
                  .result,
              Check::Result::ok)
        << "what is not used does not matter";
  }
}

TEST(HostChecks, AnUnknownServerUserIsNamed) {
  Settings settings;
  settings.mysql.os_user = "nobody-at-all";
  EXPECT_THAT(check_own_rights(settings)[0].message, HasSubstr("nobody-at-all"));
}

}  // namespace
}  // namespace guestagent

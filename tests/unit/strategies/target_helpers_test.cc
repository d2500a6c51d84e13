// Small decisions on the target's side that need no server.
#include <gtest/gtest.h>

#include "base/error.h"
#include "strategies/mysql/host/server_identity.h"
#include "strategies/mysql/install/receive.h"
#include "strategies/mysql/install/switch_data.h"

namespace guestagent::mysql {
namespace {

class ServerId : public ::testing::Test {
 protected:
  ServerId() : dir(fs::temp_directory_path(), "id-") {}
  std::uint32_t choose(std::optional<std::uint32_t> asked, std::uint32_t source,
                       const fs::path& data = "/data/a") const {
    return choose_server_id(asked, source, data, dir.path());
  }
  TempDir dir;
};

TEST_F(ServerId, AskedOneIsTakenUnlessTheSourceHasIt) {
  EXPECT_EQ(choose(7, 1), 7U);
  try {
    choose(7, 7);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::failed_precondition);
    EXPECT_FALSE(e.hint().empty());
  }
}

TEST_F(ServerId, DerivedOneIsTheSameEachTimeAndNeverTheSources) {
  const std::uint32_t first = choose({}, 1);
  EXPECT_NE(first, 0U);
  EXPECT_EQ(choose({}, 1), first);
  EXPECT_NE(choose({}, 1, "/data/b"), first) << "two servers of one host";
  const std::uint32_t other = choose({}, first);
  EXPECT_NE(other, first);
  EXPECT_EQ(choose({}, first), other);
}

TEST_F(ServerId, KeptOneStays) {
  keep_server_id(4000000000U, dir.path());
  EXPECT_EQ(choose({}, 1, "/data/moved"), 4000000000U);
  EXPECT_NE(choose({}, 4000000000U), 4000000000U);
  EXPECT_EQ(choose(5, 1), 5U);
  write_file_atomic(dir.path() / "mysql/server_id.json", "{\"server_id\": 0}");
  EXPECT_THROW(choose({}, 1), Error);
}

TEST(PrepareMemory, FollowsTheRedoWithinBounds) {
  MysqlSettings settings;
  const std::uint64_t mib = 1 << 20;
  EXPECT_EQ(prepare_memory(settings, 0), 128 * mib);
  EXPECT_GE(prepare_memory(settings, 100 * mib), 128 * mib);
  EXPECT_LT(prepare_memory(settings, std::uint64_t{1} << 50), std::uint64_t{1} << 50) << "what the host cannot give";
  settings.prepare_memory = 3 * mib;
  EXPECT_EQ(prepare_memory(settings, std::uint64_t{1} << 50), 3 * mib);
}

TEST(TablespaceNames, AreReadAndPathsRefused) {
  EXPECT_EQ(tablespace_names("ibdata1:12M:autoextend"), (std::vector<std::string>{"ibdata1"}));
  EXPECT_EQ(tablespace_names("ibdata1:12M;big:1G:autoextend"), (std::vector<std::string>{"ibdata1", "big"}));
  EXPECT_TRUE(tablespace_names("").empty());
  EXPECT_THROW(tablespace_names("/fast/ibdata1:12M"), Error);
}

TEST(Tools, MissingOneIsNamed) {
  const TempDir empty(fs::temp_directory_path(), "tools-");
  MysqlSettings settings;
  settings.tools_dir = empty.path();
  try {
    tool_path(settings, "mariadb-backup");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::failed_precondition);
    EXPECT_NE(std::string(e.what()).find("mariadb-backup"), std::string::npos);
    EXPECT_NE(std::string(e.what()).find(empty.path().string()), std::string::npos);
  }
  EXPECT_THROW(require_known_format("zip"), Error);
  require_known_format("tar");
  require_known_format("xbstream");
}

}  // namespace
}  // namespace guestagent::mysql

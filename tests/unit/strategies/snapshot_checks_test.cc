#include "strategies/mysql/source/snapshot_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace guestagent::mysql {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

TEST(RedoCheck, AnIdleServersIsLargeEnough) {
  EXPECT_EQ(check_redo(96 * kMiB, 100 * kGiB, 0).result, Check::Result::ok);
}

TEST(RedoCheck, WhatIsWrittenOverDuringTheCopyIsWarnedOf) {
  // 100 GiB take some 1025 s; in that time 1 MiB/s makes 1025 MiB.
  const Check small = check_redo(1024 * kMiB, 100 * kGiB, kMiB);
  EXPECT_EQ(small.result, Check::Result::warning);
  EXPECT_THAT(small.message, HasSubstr("writes over in 1024 s"));
  EXPECT_THAT(small.message, HasSubstr("102400 MiB takes some 1025 s"));
  EXPECT_THAT(small.hint, HasSubstr("innodb_log_file_size"));
  EXPECT_EQ(check_redo(1026 * kMiB, 100 * kGiB, kMiB).result, Check::Result::ok);
}

TEST(RedoCheck, ATinyOneBesideMuchDataIsWarnedOfAlsoWhenIdle) {
  EXPECT_EQ(check_redo(16 * kMiB, 2 * kGiB, 0).result, Check::Result::warning);
  EXPECT_EQ(check_redo(16 * kMiB, 100 * kMiB, 0).result, Check::Result::ok);
}

TEST(EngineCheck, WhatIsNotInACopyIsNamed) {
  struct Case {
    const char* engine;
    bool rows;
    std::optional<Check::Result> result;
  };
  const Case cases[] = {
      {"InnoDB", true, {}},
      {"MyISAM", true, {}},
      {"Aria", true, {}},
      {"CSV", true, {}},
      {"BLACKHOLE", false, {}},
      {"ARCHIVE", true, {}},
      {"ROCKSDB", true, {}},
      {"", false, {}},  // a table that the server cannot open
      {"MEMORY", false, {}},
      {"MEMORY", true, Check::Result::failed},
      {"TokuDB", true, Check::Result::failed},
      {"Columnstore", true, Check::Result::failed},
      {"FEDERATED", true, Check::Result::warning},
      {"Spider", true, Check::Result::warning},
      {"CONNECT", true, Check::Result::warning},
      {"S3", true, Check::Result::warning},
      {"SomethingNew", true, Check::Result::warning},
  };
  for (const Case& each : cases) {
    std::vector<Check> checks;
    check_engines(
        {{"d", "t", each.engine, 0}}, [&](const TableName&) { return each.rows; }, checks);
    ASSERT_EQ(checks.size(), each.result ? 1U : 0U) << each.engine;
    if (!each.result) continue;
    EXPECT_EQ(checks[0].result, *each.result) << each.engine;
    EXPECT_THAT(checks[0].message, HasSubstr(std::string("d.t (") + each.engine + ")"));
    EXPECT_FALSE(checks[0].hint.empty());
  }
}

TEST(RedoCheck, AnUnknownSizeIsNotJudged) {
  EXPECT_EQ(check_redo(0, 100 * kGiB, kGiB).result, Check::Result::ok);
}

}  // namespace
}  // namespace guestagent::mysql

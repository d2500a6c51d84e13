// What an attach had fetched, found and looked after.
#include "strategies/mysql/install/staged.h"

#include <gtest/gtest.h>

#include "strategies/mysql/copy/placed_record.h"
#include "strategies/mysql/copy/ready_record.h"
#include "tests/support/fake_clock.h"

namespace guestagent::mysql {
namespace {

class Staged : public testing::Test {
 protected:
  Staged() {
    settings_.data_dir = top_.path() / "data";
    make_dir(settings_.data_dir, 0700);
  }
  fs::path stage(const std::string& name, const std::string& record) {
    const fs::path dir = top_.path() / "data.guestagent" / name;
    make_dir(dir, 0700);
    write_file_atomic(dir / "ibdata1", std::string(1000, 'x'));
    if (!record.empty()) write_file_atomic(dir.string() + record, "");
    return dir;
  }

  TempDir top_{fs::temp_directory_path(), "staged-"};
  MysqlSettings settings_;
};

TEST_F(Staged, WithoutARecordItIsAJobsAndNobodyElses) {
  stage("staging-1", "");
  stage("previous-1", ".placed");
  EXPECT_TRUE(staged_copies(settings_).empty());
  const fs::path part = stage("staging-2", ".placed"), ready = stage("staging-3", ".ready");
  const auto found = staged_copies(settings_);
  ASSERT_EQ(found.size(), 2U);
  for (const StagedCopy& copy : found) {
    EXPECT_EQ(copy.dir, copy.ready ? ready : part);
    EXPECT_GE(copy.bytes, 1000U);
  }
  settings_.data_dir = top_.path() / "none";
  EXPECT_TRUE(staged_copies(settings_).empty());
}

TEST_F(Staged, WhatIsTooOldGoesWithItsRecordAndTheDirectoryAroundIt) {
  const fs::path part = stage("staging-1", ".placed"), ready = stage("staging-2", ".ready");
  FakeClock clock;
  const Millis keep{3600000};
  clock.advance(std::chrono::duration_cast<Millis>(system_clock().now() - clock.now()));
  EXPECT_TRUE(old_staged(settings_, keep, clock).empty());
  clock.advance(keep + Millis(5000));
  const auto old = old_staged(settings_, keep, clock);
  EXPECT_EQ(old.size(), 2U);
  for (const StagedCopy& copy : old) remove_staged(copy);
  EXPECT_FALSE(fs::exists(PlacedRecord::path_of(part)));
  EXPECT_FALSE(fs::exists(ready_record_path(ready)));
  EXPECT_FALSE(fs::exists(part.parent_path()));
}

}  // namespace
}  // namespace guestagent::mysql

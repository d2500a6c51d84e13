#include "base/memory.h"

#include <gtest/gtest.h>

#include <limits>

namespace guestagent {
namespace {

constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();

void limit(const fs::path& dir, const char* file, const std::string& value) {
  fs::create_directories(dir);
  write_file_atomic(dir / file, value + "\n", 0600);
}

TEST(GroupMemoryLimit, IsTheLowestOnTheWayUp) {
  const TempDir mount(fs::temp_directory_path(), "guestagent-groups-");
  limit(mount.path() / "system.slice", "memory.max", "300000000");
  limit(mount.path() / "system.slice/guestagent.service", "memory.max", "max");
  EXPECT_EQ(group_memory_limit("0::/system.slice/guestagent.service\n", mount.path()), 300000000U);
  limit(mount.path() / "system.slice/guestagent.service", "memory.max", "200000000");
  EXPECT_EQ(group_memory_limit("0::/system.slice/guestagent.service\n", mount.path()), 200000000U);
  EXPECT_EQ(group_memory_limit("0::/user.slice\n", mount.path()), kNone);
}

TEST(GroupMemoryLimit, OfTheFirstVersionIsItsControllersOwn) {
  const TempDir mount(fs::temp_directory_path(), "guestagent-groups-");
  limit(mount.path() / "memory/a", "memory.limit_in_bytes", "100000000");
  limit(mount.path() / "memory/b", "memory.limit_in_bytes", "50000000");
  const std::string groups = "9:name=systemd:/b\n4:cpu,memory:/a\n3:cpuset:/b\n0::/b\n";
  EXPECT_EQ(group_memory_limit(groups, mount.path()), 100000000U);
}

TEST(GroupMemoryLimit, OfAContainerIsAtTheMount) {
  const TempDir mount(fs::temp_directory_path(), "guestagent-groups-");
  limit(mount.path(), "memory.max", "70000000");
  EXPECT_EQ(group_memory_limit("0::/docker/0123abcd\n", mount.path()), 70000000U);
}

TEST(GroupMemoryLimit, WhatCannotBeReadLimitsNothing) {
  const TempDir mount(fs::temp_directory_path(), "guestagent-groups-");
  EXPECT_EQ(group_memory_limit("", mount.path()), kNone);
  EXPECT_EQ(group_memory_limit("nonsense\n0:\n::\n", mount.path()), kNone);
}

TEST(AvailableMemory, IsSomethingHere) {
  EXPECT_GT(available_memory(), 1000000U);
}

}  // namespace
}  // namespace guestagent

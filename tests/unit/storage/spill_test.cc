#include "storage/spill.h"

#include <gtest/gtest.h>

#include "stream/digest.h"
#include "tests/support/bytes.h"
#include "tests/support/errors.h"

namespace guestagent {
namespace {

using test::random_bytes;

class SpillTest : public ::testing::Test {
 protected:
  SpillTest() {
    settings.dir = temp.path() / "spill";
    settings.max_bytes = 1000;
    settings.keep_free_bytes = 0;
  }
  static bool save(Spill& spill, std::uint64_t number, const std::string& bytes) {
    const Buffer data = Buffer::from(bytes);
    return spill.save(number, data, sha256_hex(data));
  }

  TempDir temp{"/tmp", "guestagent-spill-"};
  SpillSettings settings;
};

TEST_F(SpillTest, NothingIsMadeBeforeItIsNeeded) {
  { const Spill spill(settings, "id"); }
  EXPECT_FALSE(fs::exists(settings.dir));
}

TEST_F(SpillTest, GivesBackWhatItGotAndTheRoomToo) {
  Spill spill(settings, "id");
  EXPECT_TRUE(save(spill, 1, random_bytes(600, 1)));
  EXPECT_TRUE(save(spill, 2, random_bytes(400, 2)));
  EXPECT_FALSE(save(spill, 3, "x"));
  EXPECT_EQ(spill.load(1).text(), random_bytes(600, 1));
  EXPECT_TRUE(save(spill, 3, random_bytes(600, 3)));
  EXPECT_EQ(spill.load(3).text(), random_bytes(600, 3));
  EXPECT_EQ(spill.load(2).text(), random_bytes(400, 2));
  EXPECT_TRUE(fs::is_empty(spill_path(settings, "id")));
}

TEST_F(SpillTest, IsForItsOwnerOnlyAndGoesAway) {
  {
    Spill spill(settings, "id");
    save(spill, 1, "bytes");
    EXPECT_EQ(fs::status(spill_path(settings, "id")).permissions(), fs::perms::owner_all);
    const fs::path file = *fs::directory_iterator(spill_path(settings, "id"));
    EXPECT_EQ(fs::status(file).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  }
  EXPECT_FALSE(fs::exists(spill_path(settings, "id")));
  EXPECT_TRUE(fs::exists(settings.dir));
}

TEST_F(SpillTest, KeepsSpaceFree) {
  settings.keep_free_bytes = free_bytes(temp.path()) + (std::uint64_t{1} << 30);
  Spill spill(settings, "id");
  EXPECT_FALSE(save(spill, 1, "x"));
}

TEST_F(SpillTest, ChangedShortenedOrLostOnDiskIsAnError) {
  Spill spill(settings, "id");
  const auto file = [&](int number) { return spill_path(settings, "id") / std::to_string(number); };
  for (int number = 1; number <= 3; ++number) save(spill, static_cast<std::uint64_t>(number), random_bytes(100, 4));
  write_file_atomic(file(1), random_bytes(100, 5), 0600);
  write_file_atomic(file(2), random_bytes(99, 4), 0600);
  fs::remove(file(3));
  EXPECT_EQ(test::code_of([&] { spill.load(1); }), "DATA_LOSS");
  EXPECT_EQ(test::code_of([&] { spill.load(2); }), "DATA_LOSS");
  EXPECT_EQ(test::code_of([&] { spill.load(3); }), "NOT_FOUND");
}

}  // namespace
}  // namespace guestagent

#include "base/id.h"

#include <gmock/gmock.h>

#include "tests/support/fake_clock.h"

namespace guestagent {
namespace {

TEST(Ids, AreValidOrNot) {
  for (const std::string id : {"a", "0", "A-b_c.d", "20260131T235959Z-1f9a3c5e"}) EXPECT_TRUE(valid_id(id)) << id;
  for (const std::string id : {"", "-a", ".a", "_a", "a/b", "a b", "ä", ".."}) EXPECT_FALSE(valid_id(id)) << id;
  EXPECT_TRUE(valid_id(std::string(64, 'x')));
  EXPECT_FALSE(valid_id(std::string(65, 'x')));
}

TEST(Ids, NewOnesAreValidSortableAndDiffer) {
  FakeClock clock;
  const std::string first = new_id(clock);
  EXPECT_TRUE(valid_id(first)) << first;
  EXPECT_NE(first, new_id(clock));
  clock.advance(Seconds(1));
  EXPECT_LT(first, new_id(clock));
}

TEST(Ids, NewUuidsAndTasksHaveTheirForm) {
  const std::string hex = "[0-9a-f][0-9a-f][0-9a-f][0-9a-f]";
  EXPECT_THAT(new_uuid(), testing::MatchesRegex(hex + hex + "-" + hex + "-4[0-9a-f][0-9a-f][0-9a-f]-a[0-9a-f][0-9a-f]" +
                                                "[0-9a-f]-" + hex + hex + hex));
  EXPECT_THAT(new_task_id(), testing::MatchesRegex("t" + hex + hex + hex + hex));
  EXPECT_TRUE(valid_id(new_task_id()));
}

}  // namespace
}  // namespace guestagent

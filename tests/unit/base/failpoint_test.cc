// The places of the crash tests; in a build without them there is nothing to test.
#include <gmock/gmock.h>

#include <csignal>
#include <cstdlib>

#include "base/child.h"
#include "base/error.h"
#include "base/journal.h"

namespace guestagent {
namespace {

#ifdef GUESTAGENT_FAILPOINTS

class FailpointTest : public testing::Test {
 protected:
  ~FailpointTest() override { ::unsetenv("GUESTAGENT_FAILPOINT"); }
  void set(const std::string& text) { ::setenv("GUESTAGENT_FAILPOINT", text.c_str(), 1); }
  TempDir dir_{fs::temp_directory_path(), "guestagent-failpoint-"};
};

TEST_F(FailpointTest, FailsAtItsPlaceOnly) {
  EXPECT_NO_THROW(failpoint("put"));
  set("put=error");
  EXPECT_THROW(failpoint("put"), Error);
  EXPECT_NO_THROW(failpoint("puts"));
  EXPECT_NO_THROW(failpoint("pu"));
  set("put=sleep:1");
  EXPECT_NO_THROW(failpoint("put"));
  set("put=explode");
  EXPECT_THROW(failpoint("put"), Error);
}

TEST_F(FailpointTest, TheJournalsComesAfterTheStepIsDurable) {
  const fs::path path = dir_.path() / "journal";
  set("journal:move=error");
  {
    Journal journal(path);
    journal.record("stop");
    EXPECT_THROW(journal.record("move"), Error);
  }
  EXPECT_NE(Journal(path).find("move"), nullptr);
}

TEST_F(FailpointTest, KillsWithoutASecondThought) {
  const char* place = std::getenv("GUESTAGENT_TEST_JOURNAL");
  if (place != nullptr) {
    // The process that is killed: another run of this test.
    Journal(place).record("move");
    std::_Exit(0);
  }
  const fs::path path = dir_.path() / "journal";
  Child child(
      {.argv = {fs::read_symlink("/proc/self/exe").string(), "--gtest_filter=FailpointTest.KillsWithoutASecondThought"},
       .env = {"GUESTAGENT_TEST_JOURNAL=" + path.string(), "GUESTAGENT_FAILPOINT=journal:move"}});
  EXPECT_EQ(child.wait().signal, SIGKILL);
  EXPECT_NE(Journal(path).find("move"), nullptr);
}

#else

TEST(Failpoint, IsNothing) {
  ::setenv("GUESTAGENT_FAILPOINT", "put=error", 1);
  EXPECT_NO_THROW(failpoint("put"));
  ::unsetenv("GUESTAGENT_FAILPOINT");
}

#endif

}  // namespace
}  // namespace guestagent

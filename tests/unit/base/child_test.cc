#include "base/child.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace guestagent {
namespace {

TEST(RunAndRead, AnswersStandardOutput) {
  EXPECT_EQ(run_and_read({.argv = {"sh", "-c", "echo hello; echo noise >&2"}}, Millis(20000)), "hello\n");
}

}  // namespace
}  // namespace guestagent

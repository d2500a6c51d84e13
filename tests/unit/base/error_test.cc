#include "base/error.h"

#include <gmock/gmock.h>

#include <cerrno>
#include <new>
#include <set>

namespace guestagent {
namespace {

const std::initializer_list<Code> kAll = {Code::cancelled,
                                          Code::invalid_argument,
                                          Code::deadline_exceeded,
                                          Code::not_found,
                                          Code::already_exists,
                                          Code::permission_denied,
                                          Code::resource_exhausted,
                                          Code::failed_precondition,
                                          Code::unimplemented,
                                          Code::internal,
                                          Code::unavailable,
                                          Code::data_loss,
                                          Code::busy};

TEST(CodeTable, EveryCodeHasARowOfItsOwn) {
  std::set<std::string_view> wires;
  std::set<int> numbers, statuses;
  for (const Code code : kAll) {
    const CodeRow& row = code_row(code);
    EXPECT_EQ(row.code, code);
    EXPECT_EQ(code_from_wire(row.wire), code);
    EXPECT_GT(row.exit_status, 1);
    EXPECT_LT(row.exit_status, 126);
    wires.insert(row.wire);
    numbers.insert(row.rpc);
    statuses.insert(row.exit_status);
  }
  EXPECT_EQ(wires.size(), kAll.size());
  EXPECT_EQ(numbers.size(), kAll.size());
  EXPECT_EQ(statuses.size(), kAll.size());
  EXPECT_EQ(code_from_wire("OUT_OF_RANGE"), Code::internal);
  EXPECT_EQ(code_from_wire(""), Code::internal);
}

TEST(Error, ContextComesFirstAndTheRestStays) {
  const Error error(Code::data_loss, "reading x: cut", "fetch it again");
  try {
    with_context("restoring", [&]() -> int { throw error; });
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "restoring: reading x: cut");
    EXPECT_EQ(e.code(), Code::data_loss);
    EXPECT_EQ(e.hint(), "fetch it again");
  }
  EXPECT_EQ(with_context("fine", [] { return 3; }), 3);
}

TEST(SystemError, HasTheCodeThatFits) {
  EXPECT_EQ(system_error("x", ENOSPC).code(), Code::resource_exhausted);
  EXPECT_FALSE(system_error("x", ENOSPC).hint().empty());
  EXPECT_EQ(system_error("x", EDQUOT).code(), Code::resource_exhausted);
  EXPECT_EQ(system_error("x", ENOENT).code(), Code::not_found);
  EXPECT_EQ(system_error("x", EACCES).code(), Code::permission_denied);
  EXPECT_EQ(system_error("x", EPERM).code(), Code::permission_denied);
  EXPECT_EQ(system_error("x", EIO).code(), Code::internal);
  EXPECT_THAT(system_error("writing f", EIO).what(), testing::StartsWith("writing f: "));
}

TEST(ToError, KeepsOursAndWrapsOthers) {
  EXPECT_EQ(to_error(Error(Code::busy, "b", "h")).hint(), "h");
  EXPECT_EQ(to_error(std::bad_alloc()).code(), Code::resource_exhausted);
  EXPECT_EQ(to_error(std::runtime_error("why")).code(), Code::internal);
  EXPECT_STREQ(to_error(std::runtime_error("why")).what(), "why");
}

}  // namespace
}  // namespace guestagent

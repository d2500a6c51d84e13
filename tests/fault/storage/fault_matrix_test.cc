// The matrix of single calls on a made-up Swift; ../servers has the same on a real one.
#include <gtest/gtest.h>

#include <iostream>

#include "fake_swift.h"
#include "fault_matrix.h"

namespace guestagent {
namespace {

class FaultMatrix : public testing::TestWithParam<NamedKind> {
 protected:
  static void TearDownTestSuite() { std::cout << "fault matrix: " << count_ << '\n'; }
  static inline FaultCount count_;
};

TEST_P(FaultMatrix, SucceedsOrSaysWhy) {
  count_.add(run_fault_matrix(GetParam(), [] { return std::make_unique<FakeSwift>(); }));
}

INSTANTIATE_TEST_SUITE_P(All, FaultMatrix, testing::ValuesIn(kRequestKinds),
                         [](const auto& chosen) { return std::string(chosen.param.name); });

}  // namespace
}  // namespace guestagent

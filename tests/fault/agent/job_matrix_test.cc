// Whole jobs against a made-up Swift under every fault; ../servers has the same on a real one.
#include "job_matrix.h"

#include <gtest/gtest.h>

#include <iostream>

#include "base/log.h"
#include "fault/storage/fake_swift.h"

namespace guestagent::test {
namespace {

class JobMatrix : public testing::TestWithParam<JobFaults> {
 protected:
  static void SetUpTestSuite() { log_setup(LogLevel::error, LogFormat::logfmt); }
  static void TearDownTestSuite() { std::cout << "fault matrix of jobs: " << count_ << '\n'; }
  static inline JobCount count_;
};

TEST_P(JobMatrix, NoFalseSuccessAndNothingLeft) {
  count_.add(run_job_matrix(GetParam(), [] { return std::make_unique<FakeSwift>(); }));
}

INSTANTIATE_TEST_SUITE_P(All, JobMatrix, testing::ValuesIn(job_faults()),
                         [](const auto& chosen) { return std::string(chosen.param.name); });

}  // namespace
}  // namespace guestagent::test

// Whole jobs with a real Swift behind the faults.
#include "fault/agent/job_matrix.h"

#include <gtest/gtest.h>

#include <atomic>
#include <iostream>
#include <thread>

#include "base/log.h"
#include "forwarded_swift.h"

namespace guestagent::test {
namespace {

TEST(JobMatrixOfServers, NoFalseSuccessAndNothingLeft) {
  log_setup(LogLevel::error, LogFormat::logfmt);
  std::vector<JobCount> counts(job_faults().size());
  // Much of the time is waiting.
  constexpr unsigned kThreads = 6;
  std::atomic<std::size_t> next{0};
  std::vector<std::jthread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (std::size_t i = next++; i < counts.size(); i = next++) {
        const JobFaults& faults = job_faults()[i];
        if (faults.auth != ForwardedSwift::auth()) continue;
        try {
          counts[i] = run_job_matrix(
              faults, [&faults] { return std::make_unique<ForwardedSwift>(std::string("job-") + faults.name); });
        } catch (const std::exception& e) {
          ADD_FAILURE() << faults.name << ": " << e.what();
        }
      }
    });
  }
  threads.clear();
  JobCount all;
  for (const JobCount& count : counts) all.add(count);
  EXPECT_GT(all.cases, 0U);
  std::cout << "fault matrix of jobs before a real Swift: " << all << '\n';
}

}  // namespace
}  // namespace guestagent::test

// The matrix of single calls once more, with real servers behind the faults: what a real Swift makes of a half request
// shows, too. tests/lab/swift.py run [--keystone] -- PROGRAM
#include <gtest/gtest.h>

#include <array>
#include <iostream>
#include <thread>
#include <vector>

#include "fault/storage/fault_matrix.h"
#include "forwarded_swift.h"

namespace guestagent {
namespace {

// Most of the time is waiting for stalls, so all kinds run at once, each below a prefix of its own.
TEST(FaultMatrixOfServers, SucceedsOrSaysWhy) {
  std::array<FaultCount, kRequestKinds.size()> counts;
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < kRequestKinds.size(); ++i) {
    const NamedKind kind = kRequestKinds[i];
    if ((kind.kind == RequestKind::auth_v3) != (ForwardedSwift::auth() == "v3")) continue;
    threads.emplace_back([kind, &count = counts[i]] {
      try {
        count = run_fault_matrix(kind, [kind] { return std::make_unique<ForwardedSwift>(kind.name); });
      } catch (const std::exception& e) {
        ADD_FAILURE() << kind.name << ": " << e.what();
      }
    });
  }
  threads.clear();
  FaultCount all;
  for (const FaultCount& count : counts) all.add(count);
  EXPECT_GT(all.cases, 0U);
  std::cout << "fault matrix before a real Swift: " << all << '\n';
}

}  // namespace
}  // namespace guestagent

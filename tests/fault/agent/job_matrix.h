// The matrix of whole jobs: a snapshot, an attach, a removal, each with one of its kinds of requests spoiled by every
// fault, once and for ever. A success must be one: the bytes are right, or gone. A failure leaves the target as it was
// and nothing on the store; where the store does not let that be, the error says so, the journal keeps it, and it is
// removed once the store answers again.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "fault/storage/swift_under_test.h"

namespace guestagent::test {

struct JobFaults {
  enum class Job { snapshot, dying_snapshot, attach, verify, remove };
  const char* name;
  Job job;
  bool (*hits)(const PeerRequest&);
  bool after_first_segment = false;  // of a snapshot: what comes before its first segment is stored is not spoiled
  const char* auth = "v1";
};
const std::vector<JobFaults>& job_faults();

struct JobCount {
  unsigned cases = 0, succeeded = 0, failed = 0, left = 0, false_successes = 0;
  void add(const JobCount& more);
};
std::ostream& operator<<(std::ostream& out, const JobCount& count);

// Each case on a Swift of its own that `make` answers, with nothing in it. Failures are gtest's, too.
JobCount run_job_matrix(const JobFaults& faults, const std::function<std::unique_ptr<SwiftUnderTest>()>& make);

}  // namespace guestagent::test

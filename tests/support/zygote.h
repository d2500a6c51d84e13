// Processes for a test to kill. A process that has threads cannot fork one that works, so a small one is forked before
// any test runs and forks the others.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace guestagent::test {

class Zygote {
 public:
  // What a process does with the words it is given.
  using Work = std::function<void(const std::vector<std::string>& words)>;

  // REQUIRES: no thread was started yet: make it in a ::testing::Environment.
  explicit Zygote(Work work);
  ~Zygote();
  Zygote(const Zygote&) = delete;
  Zygote& operator=(const Zygote&) = delete;

  // Runs the work in a process of its own, with GUESTAGENT_FAILPOINT set, to its end. The signal that ended it; 0 when
  // none did.
  int run(const std::string& failpoint, const std::vector<std::string>& words);

 private:
  int pid_ = -1;
  int socket_ = -1;
};

}  // namespace guestagent::test

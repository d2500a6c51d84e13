// A thread that lasts as long as the process.
#pragma once

#include <functional>

namespace guestagent {

class LastingThread {
 public:
  // Runs `f` on that thread and returns when it is done. `f` must not throw. Thread-safe.
  void run(const std::function<void()>& f);

 private:
  struct State;
  LastingThread();
  State* state_;  // never freed: the thread uses it to the end of the process
  friend LastingThread& lasting_thread();
};

// Started by its first use.
LastingThread& lasting_thread();

}  // namespace guestagent

// Signals as calls on a thread of their own, instead of handlers in which nothing may be done.
#pragma once

#include <functional>
#include <initializer_list>
#include <thread>

namespace guestagent {

// SIGINT, SIGTERM and SIGHUP wait for a SignalWatch from now on; a closed pipe is an error of the write, not
// a signal. Call it before any thread is made.
void hold_signals();

class SignalWatch {
 public:
  // `handle` is called with each that comes, until the object dies.
  explicit SignalWatch(std::function<void(int)> handle);

 private:
  std::jthread thread_;
};

}  // namespace guestagent

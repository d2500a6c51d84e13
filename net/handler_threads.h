// Threads for work that waits, made when there is work for them.
#pragma once

#include <functional>
#include <memory>

namespace guestagent {

class HandlerThreads {
 public:
  explicit HandlerThreads(unsigned most);
  ~HandlerThreads();  // stops
  // When `most` are at work it waits for one of them. False, and it is not done, when there is no thread for it.
  // Thread-safe.
  bool run(std::function<void()> work);
  // Waits for all that was given. Nothing may be given any more.
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent

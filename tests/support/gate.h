// Something that one thread waits for and another opens.
#pragma once

#include <condition_variable>
#include <mutex>

namespace guestagent::test {

// May be destroyed as soon as wait() has returned.
class Gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

}  // namespace guestagent::test

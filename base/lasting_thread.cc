#include "base/lasting_thread.h"

#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>

#include "base/log.h"

namespace guestagent {

struct LastingThread::State {
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<std::packaged_task<void()>> tasks;

  void work() {
    for (;;) {
      std::unique_lock lock(mutex);
      wake.wait(lock, [&] { return !tasks.empty(); });
      std::packaged_task<void()> task = std::move(tasks.front());
      tasks.pop_front();
      lock.unlock();
      task();
    }
  }
};

LastingThread::LastingThread() : state_(new State) {
  std::thread([state = state_] { state->work(); }).detach();
}

void LastingThread::run(const std::function<void()>& f) {
  std::packaged_task<void()> task([&f, tags = LogScope::current()] {
    const LogScope scope(tags);
    f();
  });
  std::future<void> done = task.get_future();
  {
    std::lock_guard lock(state_->mutex);
    state_->tasks.push_back(std::move(task));
  }
  state_->wake.notify_one();
  done.get();
}

LastingThread& lasting_thread() {
  static LastingThread& instance = *new LastingThread;
  return instance;
}

}  // namespace guestagent

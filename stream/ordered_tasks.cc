#include "stream/ordered_tasks.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace guestagent {

WorkerPool::WorkerPool(unsigned threads) {
  const LogScope::Tags tags = LogScope::current();
  const unsigned count = std::max(threads, 1U);
  threads_.reserve(count);
  try {
    for (unsigned i = 0; i < count; ++i) {
      threads_.emplace_back([this, tags] {
        const LogScope scope(tags);
        work();
      });
    }
  } catch (...) {
    end();
    throw;
  }
}

WorkerPool::~WorkerPool() {
  end();
}

void WorkerPool::end() {
  std::deque<std::function<void()>> dropped;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    dropped.swap(queue_);
  }
  wake_.notify_all();
  dropped.clear();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::enqueue(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    // A task that runs on while the pool ends may still hand over more; that is dropped as what had not begun.
    if (ending_) return;
    queue_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void WorkerPool::work() {
  while (true) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return ending_ || !queue_.empty(); });
      if (ending_) return;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    task();
  }
}

}  // namespace guestagent

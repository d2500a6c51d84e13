// Work on numbered pieces by several threads, with the results in order.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

namespace guestagent {

// An Error on its way from one thread to another, with nothing shared between them: copies of an exception share their
// text, counted inside the standard library where ThreadSanitizer cannot see that it is safe.
struct Failure {
  explicit Failure(const std::exception& e) : Failure(to_error(e)) {}
  [[noreturn]] void raise() const { throw Error(code, message, hint); }

  Code code;
  std::string message, hint;

 private:
  explicit Failure(const Error& error) : code(error.code()), message(error.what()), hint(error.hint()) {}
};

// A fixed set of worker threads. Tasks start in the order in which they were given; log lines of theirs carry the tags
// of the thread that made the pool. Thread-safe.
class WorkerPool {
 public:
  explicit WorkerPool(unsigned threads);
  ~WorkerPool();  // waits for running tasks; those not begun are dropped (their futures say broken_promise)

  template <typename F>
  auto run(F f) -> std::future<decltype(f())> {
    auto task = std::make_shared<std::packaged_task<decltype(f())()>>(std::move(f));
    auto result = task->get_future();
    enqueue([task] { (*task)(); });
    return result;
  }

 private:
  void enqueue(std::function<void()> task);
  void work();
  void end();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

// Results of tasks in the order in which they were added, at most `window` under way: the whole bound on a pipeline's
// memory. Not thread-safe (one owner).
template <typename T>
class InOrder {
 public:
  explicit InOrder(std::size_t window) : window_(window) {}
  bool full() const { return pending_.size() >= window_; }
  bool empty() const { return pending_.empty(); }
  void add(std::future<T> future) { pending_.push_back(std::move(future)); }
  // Waits for the oldest; rethrows what it threw.
  T take() {
    std::future<T> first = std::move(pending_.front());
    pending_.pop_front();
    return first.get();
  }

 private:
  std::size_t window_;
  std::deque<std::future<T>> pending_;
};

}  // namespace guestagent

#include "net/handler_threads.h"

#include <condition_variable>
#include <deque>
#include <list>
#include <mutex>
#include <system_error>
#include <thread>

#include "base/clock.h"

namespace guestagent {
namespace {

constexpr Seconds kIdleHandler{10};  // then it ends

}  // namespace

struct HandlerThreads::State {
  explicit State(unsigned m) : most(m) {}
  const unsigned most;
  std::mutex mutex;  // guards all below
  std::condition_variable changed;
  std::deque<std::function<void()>> queue;
  std::list<std::thread> threads, ended;
  std::size_t idle = 0;
  bool stopping = false;

  void work(std::list<std::thread>::iterator self) {
    std::unique_lock lock(mutex);
    for (;;) {
      ++idle;
      changed.wait_for(lock, kIdleHandler, [&] { return stopping || !queue.empty(); });
      --idle;
      if (queue.empty()) break;
      auto next = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      next();
      next = nullptr;
      lock.lock();
    }
    ended.splice(ended.end(), threads, self);
    changed.notify_all();
  }
};

HandlerThreads::HandlerThreads(unsigned most) : state_(std::make_unique<State>(most)) {}

HandlerThreads::~HandlerThreads() {
  stop();
}

bool HandlerThreads::run(std::function<void()> work) {
  State& state = *state_;
  std::list<std::thread> joining;
  {
    const std::lock_guard lock(state.mutex);
    joining.swap(state.ended);
    state.queue.push_back(std::move(work));
    if (state.queue.size() > state.idle && state.threads.size() < state.most) {
      const auto self = state.threads.emplace(state.threads.end());
      try {
        *self = std::thread([&state, self] { state.work(self); });
      } catch (const std::system_error&) {
        state.threads.erase(self);
        state.queue.pop_back();
        return false;
      }
    }
    state.changed.notify_one();
  }
  for (std::thread& thread : joining) thread.join();
  return true;
}

void HandlerThreads::stop() {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  state.stopping = true;
  state.changed.notify_all();
  state.changed.wait(lock, [&] { return state.threads.empty(); });
  std::list<std::thread> joining;
  joining.swap(state.ended);
  lock.unlock();
  for (std::thread& thread : joining) thread.join();
}

}  // namespace guestagent

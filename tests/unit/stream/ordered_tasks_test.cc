#include "stream/ordered_tasks.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <stdexcept>

namespace guestagent {
namespace {

TEST(WorkerPool, RunsTasksOnAllItsThreads) {
  WorkerPool pool(3);
  std::latch together(3);
  std::vector<std::future<int>> results;
  for (int i = 0; i < 3; ++i) {
    results.push_back(pool.run([&together, i] {
      together.arrive_and_wait();
      return i;
    }));
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(results[static_cast<std::size_t>(i)].get(), i);
}

TEST(WorkerPool, AnExceptionComesOutOfTheFuture) {
  WorkerPool pool(1);
  std::future<void> failing = pool.run([]() -> void { throw std::runtime_error("so it is"); });
  std::future<int> next = pool.run([] { return 5; });
  EXPECT_THROW(failing.get(), std::runtime_error);
  EXPECT_EQ(next.get(), 5);
}

TEST(WorkerPool, EndingDropsWhatHasNotBegun) {
  std::future<void> running;
  std::future<void> waiting;
  std::atomic<bool> ran_after = false;
  std::latch begun(1);
  std::promise<void> go_on;
  std::thread ending;
  {
    auto pool = std::make_unique<WorkerPool>(1);
    running = pool->run([&] {
      begun.count_down();
      go_on.get_future().wait();
    });
    waiting = pool->run([&] { ran_after = true; });
    begun.wait();
    ending = std::thread([ended = std::move(pool)]() mutable { ended.reset(); });
  }
  EXPECT_THROW(waiting.get(), std::future_error);
  go_on.set_value();
  running.get();
  ending.join();
  EXPECT_FALSE(ran_after);
}

TEST(WorkerPool, NoThreadsIsOne) {
  WorkerPool pool(0);
  EXPECT_EQ(pool.run([] { return 1; }).get(), 1);
}

TEST(InOrder, AnswersInTheOrderOfAddingWhateverEndsFirst) {
  WorkerPool pool(2);
  InOrder<int> results(2);
  std::promise<void> first_may_end;
  results.add(pool.run([&] {
    first_may_end.get_future().wait();
    return 1;
  }));
  EXPECT_FALSE(results.full());
  results.add(pool.run([&] {
    first_may_end.set_value();
    return 2;
  }));
  EXPECT_TRUE(results.full());
  EXPECT_EQ(results.take(), 1);
  EXPECT_EQ(results.take(), 2);
  EXPECT_TRUE(results.empty());
}

}  // namespace
}  // namespace guestagent

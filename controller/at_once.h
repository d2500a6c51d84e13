// A bounded number of threads for a list of work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

namespace guestagent::controller {

// each(0) … each(count - 1), begun in this order, at most `most` of them at a time; fewer where there are not so many
// threads to be had. Returns when all are done. `each` must not throw.
template <typename F>
void at_once(std::size_t count, std::size_t most, F each) {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t n = next++; n < count; n = next++) each(n);
  };
  std::vector<std::jthread> threads;
  try {
    while (threads.size() + 1 < std::min(count, most)) threads.emplace_back(work);
  } catch (const std::system_error&) {
    // Those that are there do it.
  }
  work();
}

}  // namespace guestagent::controller

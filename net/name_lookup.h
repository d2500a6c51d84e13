// The addresses of a name, for a caller who does not wait longer than it wants.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace guestagent {

// The addresses of a host, as numbers. Throws Error(unavailable); may take as long as it likes.
using Resolver = std::function<std::vector<std::string>(const std::string& host)>;
std::vector<std::string> resolve_by_system(const std::string& host);

// Looks names up in threads that nobody has to wait for: the system's resolver cannot be stopped, and takes half a
// minute and more where the servers of names do not answer. Thread-safe.
class NameLookup {
 public:
  explicit NameLookup(Resolver resolver) : resolver_(std::move(resolver)) {}

  // At least one. Throws Error: the resolver's, deadline_exceeded at `until`, cancelled on `stop`, unavailable when too
  // many names are being looked up already.
  std::vector<std::string> find(const std::string& host, SteadyTime until, const std::stop_token& stop);

 private:
  const Resolver resolver_;
  std::shared_ptr<std::atomic<int>> running_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace guestagent

// The service manager's watchdog: told that the agent is well for as long as its server answers.
#pragma once

#include <thread>

#include "base/clock.h"
#include "base/file.h"

namespace guestagent {

// Whether whoever serves `socket` answers a request, whatever it says, within `timeout`; true where nobody serves it,
// which a new start would not be the answer to: an administrator has taken it away. Does not throw.
bool answers(const fs::path& socket, Millis timeout);

// Tells WATCHDOG=1 at a third of the time that the service manager gives (sd_watchdog_enabled), from a thread of its
// own, each time that the agent answers at `socket`. Does nothing where no watchdog is set.
class Watchdog {
 public:
  explicit Watchdog(const fs::path& socket);

 private:
  std::jthread feeding_;
};

}  // namespace guestagent

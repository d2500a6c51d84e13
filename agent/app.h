// The agent's parts put together, for every command that works in this process.
#pragma once

#include <memory>

#include "agent/dispatcher.h"
#include "agent/jobs.h"
#include "agent/operations.h"
#include "config/settings.h"
#include "storage/stores.h"
#include "storage/throttle.h"
#include "strategies/datastores.h"

namespace guestagent {

class App {
 public:
  // Connects to nothing and touches no file but the configuration and what it names. `allow_async`: see
  // Dispatcher.
  App(Settings read, bool allow_async, Jobs::Observer observer = {});
  App(const App&) = delete;
  App& operator=(const App&) = delete;

  void set_throttle(const ThrottleSettings& limits);

  const Settings settings;
  Throttle throttle;
  const std::unique_ptr<ObjectStore> store;
  const DatastoreParts parts;
  Operations operations;
  Jobs jobs;
  Dispatcher dispatcher;
};

}  // namespace guestagent

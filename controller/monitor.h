// Asks every agent for its status, all the time, and says what changed for the worse or the better.
#pragma once

#include <memory>
#include <string>

#include "config/controller_settings.h"
#include "controller/agent_client.h"
#include "controller/live.h"
#include "controller/state.h"

namespace guestagent::controller {

class Monitor {
 public:
  // All outlive it.
  Monitor(State& state, Agents& agents, Live& live, const ControllerSettings& settings, Clock& clock);
  ~Monitor();
  void start();
  void shut_down();

  // One look at one instance, and what follows from it. Thread-safe.
  void look(const Instance& instance, std::stop_token stop);
  // The same for an instance of which a task has just changed what it is. Throws nothing: what cannot be learnt now
  // stays unknown.
  void look_now(const std::string& instance_id, std::stop_token stop);

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

// What the controller makes of an agent's answer: the verdict is the agent's unless the controller knows
// better, which is when the replica lags past `lag_limit` or does not do what the topology says
// (`expected_source`: 0 where it follows nobody or that is not known).
LiveStatus judge(const std::string& answer, bool is_member, std::uint64_t expected_source, Millis lag_limit);

}  // namespace guestagent::controller

// The design's task manager: one snapshot, N replicas made of it at the same time, topology, clean-up; and
// the detach of one.
//
// Each running task has a thread that moves it from step to step of the state (state.h). A thread that dies
// with the process is begun again at the step that the state has: whatever it did on an agent has a job id by
// which it is found again.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "config/controller_settings.h"
#include "controller/agent_client.h"
#include "controller/live.h"
#include "controller/provision.h"
#include "controller/state.h"

namespace guestagent::controller {

struct ReplicaTopology {  // the design's `topology`
  std::string slave_of;   // empty: the master of the call
  bool read_only = true;
};

struct RequestNote {
  std::string name;  // of hosts that are made
  std::string text;  // the request as JSON, for people
  std::string key;   // a repeat with the same key answers the same task
};

struct DetachOptions {
  bool force = false;
  std::optional<std::uint64_t> drain_timeout_s;
};

// All methods are thread-safe and throw Error.
class TaskManager {
 public:
  // All outlive it.
  TaskManager(State& state, Agents& agents, Provisioner& provisioner, Live& live,
              const ControllerSettings& settings, Clock& clock);
  ~TaskManager();

  // The two calls of the design. They answer when the task is in the state; its thread does the rest.
  Task create_replicated_instances(const std::string& master_id, int slave_count, const std::string& flavor,
                                   const ReplicaTopology& topology, std::uint64_t volume_size,
                                   const std::string& availability_zone, const std::string& nics,
                                   const RequestNote& note = {});
  Task detach_replication(const std::string& slave_instance, const DetachOptions& options = {},
                          const RequestNote& note = {});

  void cancel(const std::string& task_id);
  // On the hosts that the task had where their agents answer and are still free, else (and always with
  // `replace`) on others.
  Task retry(const std::string& task_id, bool replace);

  // Goes on with what an earlier process left. Once, before anything else.
  void resume();
  // Stops at the next safe place; the tasks stay as they are in the state. Waits for the threads.
  void shut_down();

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

}  // namespace guestagent::controller

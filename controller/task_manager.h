// The design's task manager: one snapshot, N replicas made of it at the same time, topology, clean-up; and
// the detach of one.
//
// Each running task has a thread that moves it from step to step of the state (state.h). A thread that dies
// with the process is begun again at the step that the state has: whatever it did on an agent has a job id by
// which it is found again.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>

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
  std::string name;        // of hosts that are made
  std::string text;        // the request as JSON, for people
  RequestMark mark;        // a repeat answers the same task
  bool overwrite = false;  // hosts that have data of their own may be taken, and their data replaced
};

struct DetachOptions {
  bool force = false;
  std::optional<std::uint64_t> drain_timeout_s;
};

// All methods are thread-safe and throw Error.
class TaskManager {
 public:
  // All outlive it.
  using Look = std::function<void(const std::string& instance_id, std::stop_token)>;
  using StartThread = std::function<std::jthread(std::function<void()>)>;

  // `look`: asks an instance's agent for its status at once, and throws nothing. `start_thread`: may throw
  // std::system_error; the task then waits until there is a thread for it.
  TaskManager(
      State& state, Agents& agents, Provisioner& provisioner, Live& live, const ControllerSettings& settings,
      Clock& clock, Look look = [](const std::string&, std::stop_token) {},
      StartThread start_thread = [](std::function<void()> work) { return std::jthread(std::move(work)); });
  ~TaskManager();

  // The two calls of the design. They answer when the task is in the state; its thread does the rest. Hosts of the pool
  // are asked first: one whose agent does not answer, or which has data of its own (unless those may be overwritten),
  // is not taken.
  Task create_replicated_instances(const std::string& master_id, int slave_count, const std::string& flavor,
                                   const ReplicaTopology& topology, std::uint64_t volume_size,
                                   const std::string& availability_zone, const std::string& nics,
                                   const RequestNote& note = {});
  Task detach_replication(const std::string& slave_instance, const DetachOptions& options = {},
                          const RequestMark& mark = {});

  // Another source for the set of a replica, or of a source that is gone. `request`: the action as JSON.
  Task promote(const std::string& replica, const std::string& request, const RequestMark& mark = {});
  Task rebuild(const std::string& replica, const std::string& request, const RequestMark& mark = {});
  Task eject(const std::string& source, const std::string& request, const RequestMark& mark = {});

  void cancel(const std::string& task_id, const RequestMark& mark = {});
  // On the hosts that the task had where they are still good for it, else (and always with `replace`) on others.
  Task retry(const std::string& task_id, bool replace, bool overwrite = false, const RequestMark& mark = {});

  // Goes on with what an earlier process left. Once, before anything else.
  void resume();
  // Stops at the next safe place; the tasks stay as they are in the state. Waits for the threads.
  void shut_down();

 private:
  struct Shared;
  Task start_on_good_hosts(const NewReplicate& in);
  std::unique_ptr<Shared> shared_;
};

}  // namespace guestagent::controller

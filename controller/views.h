// What the controller knows, as JSON for its users.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "base/json.h"
#include "controller/live.h"
#include "controller/state.h"

namespace guestagent::controller {

// Thread-safe.
class Views {
 public:
  Views(State& state, const Live& live) : state_(state), live_(live) {}

  // {"instances": [...]}; `history`: with lag_history, for the page.
  std::string instances(bool history) const;
  // {"instance": {...}} with `topology` as the design has it, and beside it each member's live status.
  std::string instance(const std::string& id) const;
  // The same without topology, on one line, for an event; empty when there is no such instance.
  std::string instance_event(const std::string& id) const;
  // {"topology": {"members": [...]}}: the design's document and nothing else.
  std::string topology(const std::string& id) const;
  std::string tasks(int limit) const;
  std::string task(const std::string& id) const;
  std::string task_event(const std::string& id) const;
  std::string events(int limit) const;
  // The instance that this one's server follows without being a member of its topology: somebody else set it up.
  std::optional<Instance> followed_outside(const Instance& instance) const;

 private:
  struct Work {  // what a running task does on an instance
    std::string task_id, kind, state;
    int number = 0;
  };
  std::map<std::string, Work> work() const;
  void write_instance(JsonWriter& out, const Instance& instance, const std::optional<Member>& member,
                      const std::optional<Work>& work) const;
  void write_topology(JsonWriter& out, const std::vector<TopologyEntry>& entries) const;
  void write_task(JsonWriter& out, const Task& task) const;
  std::optional<JobView> job_of(const Work& work) const;

  State& state_;
  const Live& live_;
};

// How far the whole task is, 0 to 100; goes up only within a step. One that ended short of success: the share that
// succeeded.
int task_percent(const Task& task, const std::vector<Replica>& replicas,
                 const std::vector<std::optional<JobView>>& jobs, const std::optional<JobView>& snapshot);

}  // namespace guestagent::controller

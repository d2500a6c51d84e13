#include "controller/metrics.h"

#include <map>

#include "net/metrics_text.h"

namespace guestagent::controller {

std::string controller_metrics(State& state, const Live& live) {
  std::map<std::string, int> states, tasks;
  for (const auto& known : words_of<InstanceState>()) states[std::string(known.text)] = 0;
  for (const auto& known : words_of<RunState>()) tasks[std::string(known.text)] = 0;
  std::map<std::string, std::string> sources;
  for (const Member& member : state.members()) sources[member.instance_id] = member.source_id;
  std::vector<std::pair<Instance, LiveStatus>> instances;
  for (const Instance& instance : state.instances()) {
    ++states[to_text(instance.state)];
    instances.emplace_back(instance, live.status(instance.id));
  }
  for (const auto& [in, count] : state.task_counts()) tasks[to_text(in)] = count;

  MetricsText out;
  out.family("guestagent_instances", "gauge", "Hosts by their state at the controller.");
  for (const auto& [name, count] : states) out.sample({{"state", name}}, count);
  out.family("guestagent_instance_verdict", "gauge", "1 for the verdict that the instance has now.");
  for (const auto& [instance, status] : instances)
    out.sample({{"instance", instance.id}, {"name", instance.name}, {"verdict", to_text(status.verdict)}}, 1);
  out.family("guestagent_instance_lag_seconds", "gauge", "How far a replica is behind its source.");
  for (const auto& [instance, status] : instances) {
    const auto source = sources.find(instance.id);
    if (source == sources.end() || !status.lag_seconds) continue;
    out.sample({{"instance", instance.id}, {"name", instance.name}, {"source", source->second}}, *status.lag_seconds);
  }
  out.family("guestagent_tasks", "gauge", "Tasks by their state.");
  for (const auto& [name, count] : tasks) out.sample({{"state", name}}, count);
  out.family("guestagent_cleanups_pending", "gauge", "What could not be removed yet after tasks.");
  out.sample({}, static_cast<double>(state.orphan_cleanups().size()));
  return out.take();
}

}  // namespace guestagent::controller

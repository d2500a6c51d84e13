#include "controller/task_manager.h"

#include <algorithm>
#include <list>
#include <map>
#include <system_error>
#include <thread>

#include "base/json.h"
#include "base/log.h"
#include "controller/good_hosts.h"
#include "controller/task_run.h"

namespace guestagent::controller {
namespace {

constexpr Millis kJanitorPause{1000};
constexpr Millis kLongestBackoff{300000};
constexpr Millis kEventSweep{3600000};
constexpr int kMostRaces = 3;

// The janitor serves many: it does not wait for one agent.
AgentAccessSettings impatient(AgentAccessSettings settings) {
  settings.lost_after = Millis(0);
  settings.busy_timeout = Millis(0);
  return settings;
}

}  // namespace

struct TaskManager::Shared {
  struct Running {
    std::unique_ptr<TaskRun> run;
    std::atomic<bool> done{false};
    std::jthread thread;
  };

  TaskTools tools;
  Limiter limiter, stage_limiter;
  AgentAccessSettings quick;
  std::mutex mutex;  // of running
  std::map<std::string, std::shared_ptr<Running>> running;
  std::stop_source stop;
  std::jthread janitor;

  StartThread start_thread;

  Shared(State& state, Agents& agents, Provisioner& provisioner, Live& live, const ControllerSettings& settings,
         Clock& clock, Look look, StartThread start)
      : tools{state, agents, provisioner, live, settings, clock, limiter, stage_limiter, std::move(look)},
        limiter(settings.agents.parallel_attaches),
        stage_limiter(settings.agents.parallel_attaches),
        quick(impatient(settings.agents)),
        start_thread(std::move(start)) {}

  void begin(const Task& task) {
    std::lock_guard lock(mutex);
    if (stop.stop_requested()) return;
    std::erase_if(running, [](const auto& entry) { return entry.second->done.load(); });
    if (running.count(task.id) != 0) return;  // a request that was repeated
    auto entry = std::make_shared<Running>();
    entry->run = std::make_unique<TaskRun>(tools, task.id, task.cancel);
    try {
      // The thread must not own the entry: it would join itself.
      entry->thread = start_thread([raw = entry.get(), token = stop.get_token()] {
        raw->run->run(token);
        raw->done = true;
      });
    } catch (const std::system_error& e) {
      log_warning("there is no thread for a task; it waits for one", {{"task", task.id}, {"error", e.what()}});
      return;
    }
    running.emplace(task.id, std::move(entry));
  }

  // Those that had no thread yet. The janitor calls it.
  void begin_waiting() {
    for (const Task& task : tools.state.running_tasks()) begin(task);
  }

  // A task's thread is a moment longer there than the task runs.
  void await_end(const std::string& task_id) {
    std::shared_ptr<Running> entry;
    {
      std::lock_guard lock(mutex);
      const auto found = running.find(task_id);
      if (found == running.end()) return;
      entry = found->second;
      running.erase(found);
    }
    if (entry->thread.joinable()) entry->thread.join();
  }

  void clean(std::stop_token token) {
    Cleaner cleaner(tools.state, tools.agents, tools.provisioner, quick, tools.clock);
    struct Backoff {
      SteadyTime next;
      Millis pause;
    };
    std::map<std::int64_t, Backoff> later;
    SteadyTime sweep = tools.clock.steady();
    while (!token.stop_requested()) {
      try {
        begin_waiting();
        std::map<std::int64_t, Backoff> still;
        for (const Cleanup& cleanup : tools.state.orphan_cleanups()) {
          const auto known = later.find(cleanup.id);
          if (known != later.end() && tools.clock.steady() < known->second.next) {
            still.insert(*known);
            continue;
          }
          if (cleaner.attempt(cleanup, token)) continue;
          // Where writers stand, or write where they must not, every second counts.
          const Millis longest =
              cleanup.kind == "fence" || cleanup.kind == "writable" ? kJanitorPause * 2 : kLongestBackoff;
          const Millis pause = known == later.end() ? kJanitorPause : std::min(known->second.pause * 2, longest);
          still[cleanup.id] = {tools.clock.steady() + pause, pause};
        }
        later = std::move(still);
        if (tools.clock.steady() >= sweep) {
          tools.state.drop_events_before(tools.clock.now() -
                                         std::chrono::hours(24) * tools.settings.monitor.event_days);
          tools.state.drop_tasks_before(tools.clock.now() - std::chrono::hours(24) * tools.settings.monitor.task_days);
          sweep = tools.clock.steady() + kEventSweep;
        }
      } catch (const std::exception& e) {
        if (token.stop_requested()) return;
        log_error("the janitor's round failed", {{"error", e.what()}});
      }
      tools.clock.sleep(kJanitorPause, token);
    }
  }
};

TaskManager::TaskManager(State& state, Agents& agents, Provisioner& provisioner, Live& live,
                         const ControllerSettings& settings, Clock& clock, Look look, StartThread start_thread)
    : shared_(std::make_unique<Shared>(state, agents, provisioner, live, settings, clock, std::move(look),
                                       std::move(start_thread))) {}

TaskManager::~TaskManager() {
  shut_down();
}

Task TaskManager::create_replicated_instances(const std::string& master_id, int slave_count, const std::string& flavor,
                                              const ReplicaTopology& topology, std::uint64_t volume_size,
                                              const std::string& availability_zone, const std::string& nics,
                                              const RequestNote& note) {
  State& state = shared_->tools.state;
  if (!topology.slave_of.empty() && topology.slave_of != master_id) {
    throw Error(Code::invalid_argument,
                "replicating " + master_id + ": topology.slave_of names another instance: " + topology.slave_of,
                "leave it out, or name the instance of the URL");
  }
  NewReplicate in;
  in.source_id = master_id;
  in.count = slave_count;
  in.host = {flavor, availability_zone, volume_size, nics};
  in.read_only = topology.read_only;
  in.provision = shared_->tools.provisioner.makes_hosts();
  in.name = note.name;
  in.request = note.text;
  in.mark = note.mark;
  in.overwrite = note.overwrite;
  Task task = in.provision ? state.start_replicate(in, pick_hosts) : start_on_good_hosts(in);
  shared_->begin(task);
  return task;
}

Task TaskManager::start_on_good_hosts(const NewReplicate& in) {
  TaskTools& tools = shared_->tools;
  GoodHosts good(tools.state, tools.agents, tools.live, in.source_id, in.overwrite);
  for (int n = 1;; ++n) {
    good.find(in.host, in.count, {}, shared_->stop.get_token());
    try {
      return tools.state.start_replicate(in, good.pick());
    } catch (const Error& e) {
      // Another task may have been faster.
      if (e.code() != Code::failed_precondition || n == kMostRaces) throw;
    }
  }
}

Task TaskManager::detach_replication(const std::string& slave_instance, const DetachOptions& options,
                                     const RequestMark& mark) {
  JsonWriter params;
  params.begin_object();
  if (options.force) params.member("force", true);
  if (options.drain_timeout_s) params.member("drain_timeout_s", *options.drain_timeout_s);
  Task task = shared_->tools.state.start_detach(slave_instance, params.end_object().text(), mark);
  shared_->begin(task);
  return task;
}

Task TaskManager::promote(const std::string& replica, const std::string& request, const RequestMark& mark) {
  Task task = shared_->tools.state.start_promote(replica, request, mark);
  shared_->begin(task);
  return task;
}

Task TaskManager::rebuild(const std::string& replica, const std::string& request, const RequestMark& mark) {
  Task task = shared_->tools.state.start_rebuild(replica, request, mark);
  shared_->begin(task);
  return task;
}

Task TaskManager::eject(const std::string& source, const std::string& request, const RequestMark& mark) {
  Task task = shared_->tools.state.start_eject(source, request, mark);
  shared_->begin(task);
  return task;
}

void TaskManager::cancel(const std::string& task_id, const RequestMark& mark) {
  shared_->tools.state.request_cancel(task_id, mark);
  std::lock_guard lock(shared_->mutex);
  const auto found = shared_->running.find(task_id);
  if (found != shared_->running.end()) found->second->run->cancel();
}

Task TaskManager::retry(const std::string& task_id, bool replace, bool overwrite, const RequestMark& mark) {
  TaskTools& tools = shared_->tools;
  const Task before = tools.state.task(task_id);
  if (before.ended()) shared_->await_end(task_id);
  if (before.kind != "replicate" || tools.provisioner.makes_hosts()) {
    const Task task = tools.state.retry(task_id, {}, pick_hosts, overwrite, mark);
    shared_->begin(task);
    return task;
  }
  Cleaner cleaner(tools.state, tools.agents, tools.provisioner, shared_->quick, tools.clock);
  for (const Cleanup& cleanup : tools.state.orphan_cleanups()) {
    if (cleanup.task_id == task_id && cleanup.kind == "attach_job") cleaner.attempt(cleanup, shared_->stop.get_token());
  }
  GoodHosts good(tools.state, tools.agents, tools.live, before.source_id, overwrite || before.overwrite);
  std::vector<Instance> theirs;
  for (const Replica& replica : tools.state.replicas(task_id)) {
    const auto host = tools.state.find_instance(replica.instance_id);
    if (replica.state != ReplicaState::succeeded && !replace && host && host->state == InstanceState::spare)
      theirs.push_back(*host);
  }
  good.ask(theirs, shared_->stop.get_token());
  std::set<int> others;
  std::set<std::string> own;
  for (const Replica& replica : tools.state.replicas(task_id)) {
    if (replica.state == ReplicaState::succeeded) continue;
    own.insert(replica.instance_id);
    const auto host = tools.state.find_instance(replica.instance_id);
    const bool stays = host && !replace && host->state == InstanceState::spare && good.is_good(host->id);
    if (!stays && !(host && host->origin == "provisioned" && host->state == InstanceState::failed))
      others.insert(replica.number);
  }
  if (!others.empty() && before.ended()) {
    good.find(before.host, static_cast<int>(others.size()), own, shared_->stop.get_token());
  }
  const Task task = tools.state.retry(task_id, others, good.pick(), overwrite, mark);
  shared_->begin(task);
  return task;
}

void TaskManager::resume() {
  for (const Task& task : shared_->tools.state.running_tasks()) {
    log_info("going on with a task", {{"task", task.id}, {"step", task.step}});
    shared_->begin(task);
  }
  shared_->janitor = std::jthread([this] { shared_->clean(shared_->stop.get_token()); });
}

void TaskManager::shut_down() {
  shared_->stop.request_stop();
  std::map<std::string, std::shared_ptr<Shared::Running>> ending;
  {
    std::lock_guard lock(shared_->mutex);
    ending.swap(shared_->running);
  }
  ending.clear();  // joins
  if (shared_->janitor.joinable()) shared_->janitor.join();
}

}  // namespace guestagent::controller

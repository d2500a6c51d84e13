#include "controller/task_run.h"

#include <algorithm>
#include <deque>
#include <thread>

#include "base/json.h"
#include "base/log.h"
#include "controller/promotion.h"
#include "controller/staging.h"

namespace guestagent::controller {
namespace {

constexpr Millis kAfterTrouble{2000};  // with the state itself: a full disk, say
constexpr Millis kCancelCheck{100};
constexpr int kCleanupTries = 2;  // before the janitor has it
constexpr Millis kCleanupPause{500};

const TaskError kCancelled{"CANCELLED", "cancelled on request", ""};

bool was_cancelled(const JobEnd& end) {
  return end.how == JobEnd::How::cancelled || (end.how == JobEnd::How::lost && end.error.code == kCancelled.code);
}

// The agent's own words, but for a hint that only who calls the agent could follow.
TaskError told(TaskError error) {
  if (error.hint.find("overwrite") != std::string::npos) {
    error.hint =
        "the host has data of its own: retry with \"overwrite\": true (guestagent retry TASK --overwrite) replaces it, "
        "\"replace\": true (--replace) takes another host";
  }
  return error;
}

[[noreturn]] void stopping() {
  throw Error(Code::cancelled, "the controller stops");
}

}  // namespace

std::unique_ptr<Limiter::Place> Limiter::take(const std::function<bool()>& cancelled, std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (free_ == 0) {
    if (stop.stop_requested() || cancelled()) return nullptr;
    changed_.wait_for(lock, stop, kCancelCheck, [&] { return free_ != 0; });
  }
  --free_;
  return std::make_unique<Place>(*this);
}

void Limiter::give_back() {
  {
    std::lock_guard lock(mutex_);
    ++free_;
  }
  changed_.notify_one();
}

TaskRun::TaskRun(TaskTools tools, std::string task_id, bool cancelled)
    : t_(tools),
      id_(std::move(task_id)),
      cancelled_(cancelled),
      runner_(t_.agents, t_.settings.agents, t_.clock),
      staging_(std::make_unique<Staging>(t_, runner_, [this] { return cancelled_.load(); })) {}

TaskRun::~TaskRun() = default;

void TaskRun::run(std::stop_token stop) {
  const LogScope scope({"", ""});
  while (!stop.stop_requested()) {
    try {
      const Task task = t_.state.task(id_);
      if (task.ended()) break;
      LogScope::set_phase(task.step);
      one_step(task, stop);
    } catch (const std::exception& e) {
      if (stop.stop_requested()) return;
      log_error("a task's step failed and is tried again", {{"task", id_}, {"error", e.what()}});
      t_.clock.sleep(kAfterTrouble, stop);
    }
  }
  t_.live.clear_jobs(id_);
}

void TaskRun::one_step(const Task& task, std::stop_token stop) {
  log_info("task step", {{"task", id_}, {"step", task.step}, {"round", std::to_string(task.round)}});
  if (task.step == "snapshot") {
    take_snapshot(task, stop);
  } else if (task.step == "replicas") {
    make_replicas(task, stop);
  } else if (task.step == "detach") {
    detach(task, stop);
  } else if (task.step == "hand_over") {
    Promotion(t_, runner_, [this] { return cancelled_.load(); }).hand_over(task, stop);
  } else if (task.step == "follow") {
    Promotion(t_, runner_, [this] { return cancelled_.load(); }).follow(task, stop);
  } else {
    clean_up(task, stop);
  }
}

JobEnd TaskRun::follow(const Task& task, int number, const RemoteJob& job, std::stop_token stop) {
  return runner_.run(
      job, [this] { return cancelled_.load(); },
      [&](JobView view) { t_.live.set_job(task.id, number, std::move(view)); }, stop);
}

void TaskRun::take_snapshot(const Task& task, std::stop_token stop) {
  RemoteJob job;
  job.address = t_.state.instance(task.source_id).address;
  job.method = "get_replication_snapshot";
  job.job_id = task.job_id("snapshot");
  job.params = JsonWriter().begin_object().member("snapshot_id", job.job_id).end_object().text();
  JobEnd end = runner_.run(
      job, [this] { return cancelled_.load(); },
      [&](JobView view) {
        if (!view.snapshot_href.empty()) staging_->begin(task, view.snapshot_href, stop);
        t_.live.set_job(task.id, 0, std::move(view));
      },
      stop);
  staging_->let_go();
  if (end.how == JobEnd::How::succeeded) {
    try {
      const SnapshotFacts facts = read_snapshot(end.result);
      check_master(end.result);
      t_.live.clear_jobs(task.id);
      return t_.state.snapshot_taken(task.id, Secret(end.result), facts.href, facts.account);
    } catch (const Error& e) {
      if (e.code() != Code::internal && e.code() != Code::invalid_argument) throw;
      end.error = task_error(e);
    }
  }
  // A snapshot that is there and cannot be used is found again by its job, and removed.
  const bool is_left = end.how == JobEnd::How::lost || end.how == JobEnd::How::succeeded;
  staging_->give_up(task, Secret(end.result), stop);
  t_.state.snapshot_failed(task.id, end.error, is_left, was_cancelled(end));
}

void TaskRun::make_replicas(const Task& task, std::stop_token stop) {
  const Secret metadata = t_.state.snapshot_metadata(task.id);
  const std::uint64_t dataset_size = read_snapshot(metadata.reveal()).dataset_size;
  std::deque<Replica> left;
  for (const Replica& replica : t_.state.replicas(task.id)) {
    if (replica.ended()) continue;
    // What runs on an agent already comes first.
    if (replica.state == ReplicaState::attaching) {
      left.push_front(replica);
    } else {
      left.push_back(replica);
    }
  }
  std::mutex mutex;
  std::exception_ptr trouble;
  const auto work = [&] {
    const LogScope scope({"", "replicas"});
    for (;;) {
      Replica next;
      {
        std::lock_guard lock(mutex);
        if (left.empty() || trouble || stop.stop_requested()) return;
        next = left.front();
        left.pop_front();
      }
      try {
        make_replica(task, next, metadata, dataset_size, stop);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!trouble) trouble = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> workers;
    const std::size_t most = std::min<std::size_t>(left.size(), t_.settings.agents.parallel_attaches);
    for (std::size_t n = 0; n < most; ++n) workers.emplace_back(work);
  }
  if (stop.stop_requested()) stopping();
  if (trouble) std::rethrow_exception(trouble);
  t_.state.replicas_ended(task.id);
}

State::HostAfter TaskRun::host_after(const Task& task, const std::string& instance_id) {
  const bool made = task.kind == "replicate" && t_.state.instance(instance_id).origin == "provisioned";
  return made ? State::HostAfter::to_remove : State::HostAfter::put_back;
}

void TaskRun::make_replica(const Task& task, const Replica& replica, const Secret& metadata, std::uint64_t dataset_size,
                           std::stop_token stop) {
  const auto cancelled = [this] { return cancelled_.load(); };
  const auto place = t_.limiter.take(cancelled, stop);
  if (stop.stop_requested()) stopping();
  // One that may already run on its agent has to be stopped there.
  if ((!place || cancelled_) && replica.state != ReplicaState::attaching) {
    staging_->give_up(task, replica, metadata, stop);
    return t_.state.replica_failed(task.id, replica.number, kCancelled, host_after(task, replica.instance_id), true);
  }
  if (t_.state.instance(replica.instance_id).address.empty() && !make_host(task, replica, stop)) return;
  const Instance host = t_.state.instance(replica.instance_id);
  if (host.host.volume_size != 0 && host.host.volume_size < dataset_size && replica.state != ReplicaState::attaching) {
    const TaskError error{"FAILED_PRECONDITION",
                          "the source's data needs " + std::to_string(dataset_size) + " GiB, the volume of " +
                              host.name + " has " + std::to_string(host.host.volume_size) + " GiB",
                          "ask for a volume size of at least " + std::to_string(dataset_size)};
    staging_->give_up(task, replica, metadata, stop);
    return t_.state.replica_failed(task.id, replica.number, error, host_after(task, host.id), false);
  }
  attach(task, replica, metadata, stop);
}

bool TaskRun::make_host(const Task& task, const Replica& replica, std::stop_token stop) {
  const bool again = replica.state == ReplicaState::provisioning || task.round > 1;
  t_.state.replica_state(task.id, replica.number, ReplicaState::provisioning);
  // A cancel and a stop of the controller both end the command, with different outcomes.
  std::stop_source either;
  const std::stop_callback on_stop(stop, [&] { either.request_stop(); });
  std::jthread watch([&](std::stop_token done) {
    while (!done.stop_requested() && !either.stop_requested()) {
      if (cancelled_) either.request_stop();
      system_clock().sleep(kCancelCheck, done);
    }
  });
  try {
    const std::string address = t_.provisioner.make(t_.state.instance(replica.instance_id), again, either.get_token());
    t_.state.host_made(task.id, replica.number, address);
    return true;
  } catch (const Error& e) {
    if (stop.stop_requested()) throw;
    t_.state.replica_failed(task.id, replica.number, cancelled_ ? kCancelled : task_error(e),
                            State::HostAfter::to_remove, cancelled_);
    return false;
  }
}

void TaskRun::attach(const Task& task, const Replica& replica, const Secret& metadata, std::stop_token stop) {
  if (replica.state != ReplicaState::attaching)
    t_.state.replica_state(task.id, replica.number, ReplicaState::attaching);
  staging_->finish(task, replica, stop);
  RemoteJob job;
  job.address = t_.state.instance(replica.instance_id).address;
  job.method = "attach_replication_slave";
  job.job_id = task.job_id("attach-" + std::to_string(replica.number));
  JsonWriter params;
  params.begin_object().key("snapshot").raw(metadata.reveal());
  params.key("slave_config").begin_object().member("read_only", task.read_only);
  if (replica.server_id != 0) params.member("server_id", replica.server_id);
  if (task.overwrite) params.member("overwrite", true);
  params.end_object();
  job.params = params.end_object().text();
  const JobEnd end = follow(task, replica.number, job, stop);
  t_.live.clear_job(task.id, replica.number);
  switch (end.how) {
    case JobEnd::How::succeeded:
      t_.live.forget_status(replica.instance_id);
      t_.state.replica_serving(task.id, replica.number);
      return t_.look(replica.instance_id, stop);
    case JobEnd::How::lost:
      return t_.state.replica_failed(task.id, replica.number, end.error, State::HostAfter::lost, was_cancelled(end));
    case JobEnd::How::failed:
    case JobEnd::How::cancelled:
      staging_->discard(task, replica, metadata, stop);
      t_.live.clear_job(task.id, replica.number);
      t_.live.forget_status(replica.instance_id);
      t_.state.replica_failed(task.id, replica.number, told(end.error), host_after(task, replica.instance_id),
                              end.how == JobEnd::How::cancelled);
      return t_.look(replica.instance_id, stop);
  }
}

void TaskRun::detach(const Task& task, std::stop_token stop) {
  const Replica replica = t_.state.replicas(task.id).at(0);
  if (replica.state == ReplicaState::pending) t_.state.replica_state(task.id, 1, ReplicaState::detaching);
  RemoteJob job;
  job.address = t_.state.instance(replica.instance_id).address;
  job.method = "detach_replication_slave";
  job.job_id = task.job_id("detach");
  job.params = task.request;
  const JobEnd end = follow(task, 1, job, stop);
  t_.live.clear_job(task.id, 1);
  t_.live.forget_status(replica.instance_id);
  if (end.how == JobEnd::How::succeeded) {
    t_.state.detached(task.id);
  } else {
    t_.state.detach_failed(task.id, end.error, end.how == JobEnd::How::lost, was_cancelled(end));
  }
  if (end.how != JobEnd::How::lost) t_.look(replica.instance_id, stop);
}

void TaskRun::clean_up(const Task& task, std::stop_token stop) {
  Cleaner cleaner(t_.state, t_.agents, t_.provisioner, t_.settings.agents, t_.clock);
  for (int n = 1; n <= kCleanupTries; ++n) {
    const auto left = t_.state.cleanups_of(task.id);
    if (left.empty()) break;
    if (n > 1 && !t_.clock.sleep(kCleanupPause, stop)) stopping();
    for (const Cleanup& cleanup : left) cleaner.attempt(cleanup, stop, [this] { return cancelled_.load(); });
  }
  // What the source is now, with other replicas and accounts than before.
  if (!cancelled_) t_.look(task.source_id, stop);
  std::string warning;
  for (const Cleanup& cleanup : t_.state.cleanups_of(task.id)) {
    warning += (warning.empty() ? "still to be removed: " : "; ") + cleanup.kind +
               (cleanup.subject.empty() ? "" : " " + cleanup.subject) + ": " + cleanup.error;
  }
  t_.state.finish(task.id, warning);
}

}  // namespace guestagent::controller

#include "controller/staging.h"

#include <system_error>

#include "base/json.h"
#include "base/log.h"
#include "controller/at_once.h"

namespace guestagent::controller {
namespace {

constexpr std::size_t kEndedAtOnce = 16;
constexpr auto kAlways = [] { return true; };

bool is_unknown(const JobEnd& end) {
  return end.how == JobEnd::How::failed && end.error.code == "NOT_FOUND";
}

}  // namespace

RemoteJob Staging::job_of(const Task& task, const Replica& replica) const {
  RemoteJob job;
  job.address = t_.state.instance(replica.instance_id).address;
  job.method = "stage_replication_snapshot";
  job.job_id = task.job_id("stage-" + std::to_string(replica.number));
  job.params = "{}";
  job.begin = false;
  return job;
}

std::function<void(JobView)> Staging::show(const Replica& replica) const {
  return [this, &replica](JobView view) { t_.live.set_job(replica.task_id, replica.number, std::move(view)); };
}

void Staging::begin(const Task& task, const std::string& snapshot_href, std::stop_token stop) {
  if (asking_.joinable()) return;
  const auto work = [this, task, snapshot_href, stop](std::stop_token let_go) {
    std::stop_source either;
    const std::stop_callback on_stop(stop, [&] { either.request_stop(); });
    const std::stop_callback on_let_go(let_go, [&] { either.request_stop(); });
    const auto noted = [&](const std::string& what, const std::function<void()>& call) {
      const LogScope scope({"", "stage"});
      try {
        call();
      } catch (const std::exception& e) {
        if (!either.stop_requested()) log_warning("staging broke off", {{"what", what}, {"error", e.what()}});
      }
    };
    noted(task.id, [&] {
      const auto replicas = t_.state.replicas(task.id);
      at_once(replicas.size(), t_.settings.agents.parallel_attaches, [&](std::size_t n) {
        noted(replicas[n].instance_name, [&] { stage(task, replicas[n], snapshot_href, either.get_token()); });
      });
    });
  };
  try {
    asking_ = std::jthread(work);
  } catch (const std::system_error& e) {
    log_warning("there is no thread to stage with", {{"task", task.id}, {"error", e.what()}});
  }
}

void Staging::stage(const Task& task, const Replica& replica, const std::string& snapshot_href, std::stop_token stop) {
  const Instance host = t_.state.instance(replica.instance_id);
  // An attach would refuse a host with data.
  if (replica.ended() || host.address.empty() || (host.has_data && !task.overwrite)) return;
  const auto place = t_.stage_limiter.take(cancelled_, stop);
  if (!place || cancelled_()) return;
  RemoteJob job = job_of(task, replica);
  job.begin = true;
  job.params =
      JsonWriter().begin_object().member("snapshot_href", snapshot_href).member("follow", true).end_object().text();
  const JobEnd end = runner_.run(job, cancelled_, show(replica), stop);
  t_.live.clear_job(task.id, replica.number);
  if (end.how == JobEnd::How::succeeded) return;
  log_info("a host has not staged the snapshot", {{"host", host.name}, {"error", end.error.message}});
  const std::lock_guard lock(mutex_);
  failed_[replica.number] = end.error;
}

void Staging::finish(const Task& task, const Replica& replica, std::stop_token stop) {
  bool answered = false;
  const JobEnd end = runner_.run(
      job_of(task, replica), cancelled_,
      [&](JobView view) {
        answered = answered || !view.phase.empty();
        show(replica)(std::move(view));
      },
      // An agent that is silent already is the attach's to wait for.
      stop, [&] { return !answered; });
  TaskError error = end.error;
  if (end.how == JobEnd::How::succeeded || cancelled_()) return;
  if (is_unknown(end)) {
    const std::lock_guard lock(mutex_);
    const auto known = failed_.find(replica.number);
    if (known == failed_.end()) return;
    error = known->second;
  }
  t_.state.add_event({.kind = "replica",
                      .instance_id = replica.instance_id,
                      .task_id = task.id,
                      .message = replica.instance_name + " has not fetched the snapshot while it was made, and " +
                                 "does it now: " + error.message});
}

std::function<bool()> Staging::patience() const {
  return [this, begun = t_.clock.steady()] { return t_.clock.steady() - begun > t_.settings.agents.lost_after; };
}

void Staging::give_up(const Task& task, const Secret& metadata, std::stop_token stop) {
  const std::vector<Replica> replicas = t_.state.replicas(task.id);
  at_once(replicas.size(), kEndedAtOnce, [&](std::size_t n) {
    try {
      if (!replicas[n].ended()) give_up(task, replicas[n], metadata, stop);
    } catch (const std::exception& e) {
      log_warning("a host's staging could not be ended", {{"host", replicas[n].instance_name}, {"error", e.what()}});
    }
  });
  if (stop.stop_requested()) throw Error(Code::cancelled, "the controller stops");
}

void Staging::give_up(const Task& task, const Replica& replica, const Secret& metadata, std::stop_token stop) {
  if (t_.state.instance(replica.instance_id).address.empty()) return;
  const JobEnd end = runner_.run(job_of(task, replica), kAlways, show(replica), stop, patience());
  // One that was cancelled has left nothing.
  if (end.how == JobEnd::How::succeeded || (end.how == JobEnd::How::failed && !is_unknown(end)))
    discard(task, replica, metadata, stop);
}

void Staging::discard(const Task& task, const Replica& replica, const Secret& metadata, std::stop_token stop) {
  if (metadata.empty()) return;
  RemoteJob job = job_of(task, replica);
  job.begin = true;
  job.method = "discard_staged_snapshot";
  job.job_id = task.job_id("discard-" + std::to_string(replica.number));
  job.params = JsonWriter().begin_object().key("snapshot").raw(metadata.reveal()).end_object().text();
  const JobEnd end = runner_.run(job, patience(), show(replica), stop, kAlways);
  if (end.how == JobEnd::How::succeeded) return;
  // It keeps that for as long as its settings say.
  log_info("a host may keep what it has of a snapshot",
           {{"host", replica.instance_name}, {"error", end.error.message}});
}

}  // namespace guestagent::controller

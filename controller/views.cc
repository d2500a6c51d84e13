#include "controller/views.h"

#include <algorithm>

#include "config/datastore_names.h"
#include "controller/event_hub.h"

namespace guestagent::controller {
namespace {

constexpr int kMostEvents = 200;

void write_job(JsonWriter& out, const JobView& job) {
  out.begin_object().member("job_id", job.job_id).member("phase", job.phase).key("progress").begin_object();
  out.member("done_bytes", job.done_bytes);
  if (job.total_bytes) out.member("total_bytes", *job.total_bytes);
  out.member("rate", job.rate);
  if (job.eta_s) out.member("eta_s", *job.eta_s);
  out.end_object();
  if (!job.note.empty()) out.member("note", job.note);
  out.end_object();
}

void write_error(JsonWriter& out, const TaskError& error) {
  if (error.empty()) return;
  out.key("error").begin_object().member("code", error.code).member("message", error.message);
  if (!error.hint.empty()) out.member("hint", error.hint);
  out.end_object();
}

void write_status(JsonWriter& out, const LiveStatus& status) {
  out.begin_object().member("verdict", to_text(status.verdict)).key("reasons").begin_array();
  for (const std::string& reason : status.reasons) out.value(reason);
  out.end_array();
  if (status.lag_seconds) out.member("lag_seconds", *status.lag_seconds);
  if (status.lag_transactions) out.member("lag_transactions", *status.lag_transactions);
  if (status.read_only) out.member("read_only", *status.read_only);
  if (!status.seen_at.empty()) out.member("seen_at", status.seen_at);
  out.end_object();
}

void write_replication(JsonWriter& out, const std::string& source_id, bool read_only) {
  out.key(kDefaultDatastore)
      .begin_object()
      .key("slave_of")
      .begin_array()
      .begin_object()
      .member("id", source_id)
      .end_object()
      .end_array();
  out.member("read_only", read_only).end_object();
}

double fraction(const std::optional<JobView>& job) {
  if (job && job->past_total) return 0.99;
  if (!job || !job->total_bytes || *job->total_bytes == 0) return 0;
  return std::min(1.0, static_cast<double>(job->done_bytes) / static_cast<double>(*job->total_bytes));
}

}  // namespace

int task_percent(const Task& task, const std::vector<Replica>& replicas,
                 const std::vector<std::optional<JobView>>& jobs, const std::optional<JobView>& snapshot) {
  if (task.state == RunState::succeeded) return 100;
  if (task.ended()) {  // what there is of it
    const auto made = std::count_if(replicas.begin(), replicas.end(),
                                    [](const Replica& r) { return r.state == ReplicaState::succeeded; });
    return replicas.empty() ? 0 : static_cast<int>(100 * made / static_cast<std::ptrdiff_t>(replicas.size()));
  }
  if (task.step == "clean_up") return 97;
  if (task.step == "snapshot") return static_cast<int>(40 * fraction(snapshot));
  const double first = task.kind == "replicate" || task.kind == "rebuild" ? 40 : 0;
  double done = 0;
  for (std::size_t n = 0; n < replicas.size(); ++n) done += replicas[n].ended() ? 1 : 0.95 * fraction(jobs[n]);
  return static_cast<int>(first + (95 - first) * (replicas.empty() ? 0 : done / static_cast<double>(replicas.size())));
}

std::map<std::string, Views::Work> Views::work() const {
  std::map<std::string, Work> out;
  for (const Task& task : state_.running_tasks()) {
    if (task.step == "clean_up") continue;
    for (const Replica& replica : state_.replicas(task.id)) {
      if (!replica.ended()) out[replica.instance_id] = {task.id, task.kind, to_text(replica.state), replica.number};
    }
    if (task.step == "snapshot") out.insert({task.source_id, {task.id, task.kind, "snapshot", 0}});
  }
  return out;
}

std::optional<JobView> Views::job_of(const Work& w) const {
  return live_.job(w.task_id, w.number);
}

void Views::write_instance(JsonWriter& out, const Instance& instance, const std::optional<Member>& member,
                           const std::optional<Work>& w) const {
  out.member("id", instance.id)
      .member("name", instance.name)
      .member("state", to_text(instance.state))
      .member("origin", instance.origin);
  if (!instance.address.empty()) out.member("address", instance.address);
  if (!instance.host.flavor.empty()) out.member("flavorRef", instance.host.flavor);
  if (!instance.host.availability_zone.empty()) out.member("availability_zone", instance.host.availability_zone);
  if (instance.host.volume_size != 0)
    out.key("volume").begin_object().member("size", instance.host.volume_size).end_object();
  if (instance.host.nics != "[]") out.key("nics").raw(instance.host.nics);
  if (instance.server_id != 0) out.member("server_id", instance.server_id);
  out.member("created_at", instance.created_at);
  if (!instance.last_error.empty()) out.member("last_error", instance.last_error);
  if (instance.state == InstanceState::spare && instance.has_data) out.member("has_user_data", true);
  if (member) write_replication(out, member->source_id, member->read_only);
  if (!member) {
    if (const auto source = followed_outside(instance))
      out.key("follows").begin_object().member("id", source->id).member("name", source->name).end_object();
  }
  write_status(out.key("status"), live_.status(instance.id));
  if (w) {
    out.key("task")
        .begin_object()
        .member("id", w->task_id)
        .member("kind", w->kind)
        .member("state", w->state)
        .end_object();
    if (const auto job = job_of(*w)) write_job(out.key("job"), *job);
  }
}

std::optional<Instance> Views::followed_outside(const Instance& instance) const {
  const std::uint64_t source = live_.status(instance.id).follows;
  std::optional<Instance> out;
  if (source == 0 || (instance.state != InstanceState::active && instance.state != InstanceState::spare)) return out;
  for (Instance& other : state_.instances()) {
    // Hosts that nothing was made of yet often share a server's default number.
    if (other.id == instance.id || other.state == InstanceState::spare ||
        (other.reported_server_id != 0 ? other.reported_server_id : other.server_id) != source)
      continue;
    if (out) return std::nullopt;  // two of one number: which it is cannot be told
    out = std::move(other);
  }
  return out;
}

std::string Views::instances(bool history) const {
  std::map<std::string, Member> members;
  for (Member& member : state_.members()) members.emplace(member.instance_id, std::move(member));
  const auto busy = work();
  JsonWriter out;
  out.begin_object().key("instances").begin_array();
  for (const Instance& instance : state_.instances()) {
    const auto member = members.find(instance.id);
    const auto w = busy.find(instance.id);
    out.begin_object();
    write_instance(out, instance, member == members.end() ? std::nullopt : std::optional(member->second),
                   w == busy.end() ? std::nullopt : std::optional(w->second));
    if (history && member != members.end()) {
      out.key("lag_history").begin_array();
      for (const double lag : live_.lag_history(instance.id)) out.value(lag);
      out.end_array();
    }
    out.end_object();
  }
  out.end_array();
  if (history)
    out.member("lag_interval_s", live_.interval_s()).member("lag_samples", static_cast<std::uint64_t>(live_.samples()));
  return out.end_object().text();
}

void Views::write_topology(JsonWriter& out, const std::vector<TopologyEntry>& entries) const {
  out.key("topology").begin_object().key("members").begin_array();
  for (const TopologyEntry& entry : entries) {
    out.begin_object().member("id", entry.id).member("name", entry.name);
    if (entry.source_id) write_replication(out, *entry.source_id, entry.read_only);
    out.end_object();
  }
  out.end_array().end_object();
}

std::string Views::topology(const std::string& id) const {
  const auto entries = state_.topology(state_.instance(id).id);
  JsonWriter out;
  out.begin_object();
  write_topology(out, entries);
  return out.end_object().text();
}

std::string Views::instance(const std::string& id) const {
  const Instance instance = state_.instance(id);
  const auto busy = work();
  const auto entries = state_.topology(instance.id);
  std::optional<Member> member;
  for (const TopologyEntry& entry : entries) {
    if (entry.id == instance.id && entry.source_id)
      member = Member{entry.id, *entry.source_id, entry.read_only, "", ""};
  }
  const auto w = busy.find(instance.id);
  JsonWriter out;
  out.begin_object().key("instance").begin_object();
  write_instance(out, instance, member, w == busy.end() ? std::nullopt : std::optional(w->second));
  write_topology(out, entries);
  out.key("members_status").begin_array();
  for (const TopologyEntry& entry : entries) {
    out.begin_object().member("id", entry.id);
    write_status(out.key("status"), live_.status(entry.id));
    const auto doing = busy.find(entry.id);
    if (doing != busy.end()) {
      if (const auto job = job_of(doing->second)) write_job(out.key("job"), *job);
    }
    out.end_object();
  }
  // Hosts on the way into this topology.
  for (const auto& [other, doing] : busy) {
    const bool shown =
        std::any_of(entries.begin(), entries.end(), [&](const TopologyEntry& e) { return e.id == other; });
    if (shown || state_.task(doing.task_id).source_id != instance.id) continue;
    out.begin_object().member("id", other);
    write_status(out.key("status"), live_.status(other));
    if (const auto job = job_of(doing)) write_job(out.key("job"), *job);
    out.end_object();
  }
  return out.end_array().end_object().end_object().text();
}

std::string Views::instance_event(const std::string& id) const {
  const auto instance = state_.find_instance(id);
  if (!instance) return {};
  std::optional<Member> member;
  for (Member& one : state_.members()) {
    if (one.instance_id == id) member = std::move(one);
  }
  const auto busy = work();
  const auto w = busy.find(id);
  JsonWriter out;
  out.begin_object();
  write_instance(out, *instance, member, w == busy.end() ? std::nullopt : std::optional(w->second));
  return out.end_object().text();
}

void Views::write_task(JsonWriter& out, const Task& task) const {
  const auto replicas = state_.replicas(task.id);
  const auto snapshot = live_.job(task.id, 0);
  std::vector<std::optional<JobView>> jobs;
  jobs.reserve(replicas.size());
  int succeeded = 0, failed = 0;
  for (const Replica& replica : replicas) {
    jobs.push_back(live_.job(task.id, replica.number));
    succeeded += replica.state == ReplicaState::succeeded;
    failed += replica.state == ReplicaState::failed;
  }
  out.begin_object()
      .member("id", task.id)
      .member("kind", task.kind)
      .member("state", to_text(task.state))
      .member("step", task.step);
  out.member("round", task.round).member("source_id", task.source_id);
  if (!task.target_id.empty()) out.member("target_id", task.target_id);
  if (task.kind == "replicate") out.member("read_only", task.read_only);
  out.member("cancel_requested", task.cancel).member("created_at", task.created_at);
  if (!task.finished_at.empty()) out.member("finished_at", task.finished_at);
  write_error(out, task.error);
  if (!task.warning.empty()) out.member("warning", task.warning);
  out.key("progress").begin_object().member("percent", task_percent(task, replicas, jobs, snapshot));
  out.member("replicas", static_cast<std::uint64_t>(replicas.size()))
      .member("succeeded", succeeded)
      .member("failed", failed)
      .end_object();
  if (snapshot && task.step == "snapshot") write_job(out.key("snapshot_job"), *snapshot);
  out.key("replicas").begin_array();
  for (std::size_t n = 0; n < replicas.size(); ++n) {
    const Replica& replica = replicas[n];
    out.begin_object()
        .member("id", replica.instance_id)
        .member("name", replica.instance_name)
        .member("state", to_text(replica.state));
    if (replica.server_id != 0) out.member("server_id", replica.server_id);
    if (!replica.started_at.empty()) out.member("started_at", replica.started_at);
    if (!replica.finished_at.empty()) out.member("finished_at", replica.finished_at);
    write_error(out, replica.error);
    if (jobs[n] && !replica.ended()) write_job(out.key("job"), *jobs[n]);
    out.end_object();
  }
  out.end_array().end_object();
}

std::string Views::tasks(int limit) const {
  JsonWriter out;
  out.begin_object().key("tasks").begin_array();
  for (const Task& task : state_.tasks(limit)) write_task(out, task);
  return out.end_array().end_object().text();
}

std::string Views::task(const std::string& id) const {
  const Task task = state_.task(id);
  JsonWriter out;
  out.begin_object().key("task");
  write_task(out, task);
  return out.end_object().text();
}

std::string Views::task_event(const std::string& id) const {
  try {
    const Task task = state_.task(id);
    JsonWriter out;
    write_task(out, task);
    return out.text();
  } catch (const Error& e) {
    if (e.code() != Code::not_found) throw;
    return {};
  }
}

std::string Views::events(int limit) const {
  JsonWriter out;
  out.begin_object().key("events").begin_array();
  for (const Event& event : state_.last_events(std::min(limit, kMostEvents))) out.raw(write_event(event));
  return out.end_array().end_object().text();
}

}  // namespace guestagent::controller

// Tasks: how they begin and how they end.
#include <algorithm>

#include "base/id.h"
#include "base/text.h"
#include "controller/state_db.h"

namespace guestagent::controller {
namespace {

// A name that no instance has: `base` and the first number from `from` on that makes it one.
std::string free_name(StateChange& change, const std::string& base, std::int64_t from) {
  for (;; ++from) {
    const std::string name = base + std::to_string(from);
    if (change.sql.number("SELECT count(*) FROM instances WHERE name = ?1 OR id = ?1", {name}) == 0) return name;
  }
}

}  // namespace

void insert_task(StateChange& change, const Task& task, const RequestMark& mark) {
  change.sql.run(
      "INSERT INTO tasks (id, kind, state, step, round, source_id, request, flavor, availability_zone, "
      "volume_size, nics, read_only, created_at, overwrite, target_id) VALUES (?,?,'running',?,1,?,?,?,?,?,?,?,?,?,?)",
      {task.id, task.kind, task.step, task.source_id, task.request, task.host.flavor, task.host.availability_zone,
       task.host.volume_size, task.host.nics, task.read_only, task.created_at, task.overwrite, task.target_id});
  change.note(mark, {.task_id = task.id});
  change.touch_task(task.id);
}

void insert_replica(StateChange& change, const std::string& task_id, int number, const Instance& host,
                    std::uint64_t server_id) {
  change.sql.run(
      "INSERT INTO replicas (task_id, number, instance_id, instance_name, state, server_id) VALUES "
      "(?,?,?,?,'pending',?)",
      {task_id, number, host.id, host.name, server_id});
}

std::optional<Task> known_task(StateChange& change, const RequestMark& mark) {
  const auto known = change.repeated(mark);
  return known ? std::optional(change.task(known->task_id)) : std::nullopt;
}

void check_source(StateChange& change, const Instance& source) {
  const std::string doing = "replicating " + source.name + ": ";
  if (source.state == InstanceState::building)
    throw Error(Code::failed_precondition, doing + "it is being made itself", "wait for its task");
  if (source.state == InstanceState::lost || source.state == InstanceState::failed) {
    throw Error(Code::failed_precondition, doing + "the host is " + to_text(source.state) + ": " + source.last_error,
                "retry or forget what failed there first");
  }
  change.sql.each(
      "SELECT t.id FROM tasks t JOIN replicas r ON r.task_id = t.id WHERE t.state = 'running' AND t.step IN "
      "('hand_over', 'follow') AND (t.source_id = ?1 OR r.instance_id = ?1)",
      {source.id}, [&](const SqlRow& row) {
        throw Error(Code::already_exists,
                    "replicating " + source.name + ": task " + row.text(0) + " gives its set another source",
                    "wait for that task");
      });
}

std::string task_on(StateChange& change, const std::string& instance_id) {
  std::string id;
  change.sql.each(
      "SELECT t.id FROM tasks t WHERE t.state = 'running' AND t.step NOT IN ('clean_up', 'done') AND (t.source_id = ?1 "
      "OR "
      "EXISTS (SELECT 1 FROM replicas r WHERE r.task_id = t.id AND r.instance_id = ?1 AND r.state NOT IN ('succeeded', "
      "'failed', 'cancelled')))",
      {instance_id}, [&](const SqlRow& row) { id = row.text(0); });
  return id;
}

std::vector<Instance> spare_hosts_for(Sqlite& sql, const std::string& source_id) {
  return sql.all("SELECT " GUESTAGENT_INSTANCE_COLUMNS
                 " FROM instances WHERE state = 'spare' AND address IS NOT NULL AND id <> ? "
                 "AND id NOT IN (SELECT source_id FROM members) ORDER BY last_error <> '', rowid",
                 {source_id}, read_instance);
}

Task read_task(const SqlRow& r) {
  Task t;
  t.id = r.text(0);
  t.kind = r.text(1);
  t.state = from_stored<RunState>(r.text(2));
  t.step = r.text(3);
  t.round = static_cast<int>(r.integer(4));
  t.source_id = r.text(5);
  t.request = r.text(6);
  t.host = {r.text(7), r.text(8), r.uint(9), r.text(10)};
  t.read_only = r.boolean(11);
  t.cancel = r.boolean(12);
  t.error = {r.text(13), r.text(14), r.text(15)};
  t.warning = r.text(16);
  t.snapshot_href = r.text(17);
  t.account = r.text(18);
  t.created_at = r.text(19);
  t.finished_at = r.text(20);
  t.overwrite = r.boolean(21);
  t.target_id = r.text(22);
  return t;
}

Replica read_replica(const SqlRow& r) {
  return {r.text(0), static_cast<int>(r.integer(1)),    r.text(2), r.text(3), from_stored<ReplicaState>(r.text(4)),
          r.uint(5), {r.text(6), r.text(7), r.text(8)}, r.text(9), r.text(10)};
}

Task State::start_replicate(const NewReplicate& in, const Pick& pick) {
  StateChange change(*db_);
  if (auto known = known_task(change, in.mark)) return *known;
  const Instance source = change.instance(in.source_id);
  check_source(change, source);

  Task task;
  task.id = new_task_id();
  task.kind = "replicate";
  task.step = "snapshot";
  task.source_id = source.id;
  task.request = in.request;
  task.host = in.host;
  task.read_only = in.read_only;
  task.created_at = change.now;
  task.overwrite = in.overwrite;
  insert_task(change, task, in.mark);

  std::vector<Instance> hosts;
  if (in.provision) {
    const auto named = change.sql.number("SELECT count(*) FROM instances WHERE origin = 'provisioned'");
    for (int n = 1; n <= in.count; ++n) {
      const std::string id = "r" + task.id.substr(1) + "-" + std::to_string(n);
      const std::string name =
          in.name.empty() ? free_name(change, source.name + "-slave", named + n) : free_name(change, in.name, n);
      change.sql.run(
          "INSERT INTO instances (" GUESTAGENT_INSTANCE_COLUMNS
          ") VALUES (?,?,NULL,?,?,?,?,'provisioned','building',NULL,0,'',?,0)",
          {id, name, in.host.flavor, in.host.availability_zone, in.host.volume_size, in.host.nics, change.now});
      hosts.push_back(change.instance(id));
    }
  } else {
    for (const std::string& id : pick(spare_hosts_for(change.sql, source.id), in.host, in.count))
      hosts.push_back(change.instance(id));
  }
  for (std::size_t n = 0; n < hosts.size(); ++n) {
    change.set_instance_state(hosts[n].id, InstanceState::building);
    insert_replica(change, task.id, static_cast<int>(n) + 1, hosts[n], change.give_server_id(hosts[n]));
  }
  if (source.state == InstanceState::spare) change.set_instance_state(source.id, InstanceState::active);
  change.touch_topology();
  change.event({.kind = "task",
                .instance_id = source.id,
                .task_id = task.id,
                .message = "making " + std::to_string(in.count) + (in.count == 1 ? " replica" : " replicas") + " of " +
                           source.name});
  const Task out = change.task(task.id);
  change.commit("start_replicate");
  return out;
}

Task State::start_detach(const std::string& instance_id, const std::string& request, const RequestMark& mark) {
  StateChange change(*db_);
  if (auto known = known_task(change, mark)) return *known;
  const Instance host = change.instance(instance_id);
  const std::string doing = "detaching " + host.name + ": ";
  std::string source_id, busy_with;
  change.sql.each("SELECT source_id FROM members WHERE instance_id = ?", {instance_id},
                  [&](const SqlRow& row) { source_id = row.text(0); });
  change.sql.each(
      "SELECT t.id FROM tasks t JOIN replicas r ON r.task_id = t.id WHERE t.state = 'running' AND "
      "r.instance_id = ? "
      "AND t.step IN ('snapshot', 'replicas', 'detach', 'hand_over', 'follow') AND r.state NOT IN ('succeeded', "
      "'failed', "
      "'cancelled')",
      {instance_id}, [&](const SqlRow& row) { busy_with = row.text(0); });
  if (!busy_with.empty()) {
    throw Error(Code::already_exists, doing + "task " + busy_with + " works on it", "wait for that task, or cancel it");
  }
  if (source_id.empty()) {
    throw Error(Code::invalid_argument, doing + "it is not a replica",
                "GET /instances/" + instance_id + " shows its topology");
  }

  Task task;
  task.id = new_task_id();
  task.kind = "detach";
  task.step = "detach";
  task.source_id = source_id;
  task.request = request;
  task.created_at = change.now;
  insert_task(change, task, mark);
  insert_replica(change, task.id, 1, host, host.server_id);
  change.touch_instance(host.id);
  change.event({.kind = "task", .instance_id = host.id, .task_id = task.id, .message = "detaching " + host.name});
  const Task out = change.task(task.id);
  change.commit("start_detach");
  return out;
}

Task State::task(const std::string& id) {
  std::lock_guard lock(db_->mutex);
  auto found = db_->sql.one("SELECT " GUESTAGENT_TASK_COLUMNS " FROM tasks WHERE id = ?", {id}, read_task);
  if (!found)
    throw Error(Code::not_found, "looking for task " + printable(id) + ": there is none", "GET /tasks lists them");
  return std::move(*found);
}

std::vector<Task> State::tasks(int limit) {
  std::lock_guard lock(db_->mutex);
  return db_->sql.all("SELECT " GUESTAGENT_TASK_COLUMNS " FROM tasks ORDER BY rowid DESC LIMIT ?", {limit}, read_task);
}

std::map<RunState, int> State::task_counts() {
  std::lock_guard lock(db_->mutex);
  std::map<RunState, int> out;
  db_->sql.each("SELECT state, count(*) FROM tasks GROUP BY state", {},
                [&](const SqlRow& row) { out[from_stored<RunState>(row.text(0))] = static_cast<int>(row.integer(1)); });
  return out;
}

std::vector<Task> State::running_tasks() {
  std::lock_guard lock(db_->mutex);
  return db_->sql.all("SELECT " GUESTAGENT_TASK_COLUMNS " FROM tasks WHERE state = 'running' ORDER BY rowid", {},
                      read_task);
}

std::vector<Replica> State::replicas(const std::string& task_id) {
  std::lock_guard lock(db_->mutex);
  return db_->sql.all("SELECT " GUESTAGENT_REPLICA_COLUMNS " FROM replicas WHERE task_id = ? ORDER BY number",
                      {task_id}, read_replica);
}

void State::request_cancel(const std::string& task_id, const RequestMark& mark) {
  StateChange change(*db_);
  if (change.repeated(mark)) return;
  change.running_task(task_id);
  change.note(mark, {.task_id = task_id});
  change.sql.run("UPDATE tasks SET cancel = 1 WHERE id = ?", {task_id});
  change.touch_task(task_id);
  change.commit("request_cancel");
}

Task State::retry(const std::string& task_id, const std::set<int>& replace, const Pick& pick, bool overwrite,
                  const RequestMark& mark) {
  StateChange change(*db_);
  if (auto known = known_task(change, mark)) return *known;
  change.note(mark, {.task_id = task_id});
  const Task task = change.task(task_id);
  const std::string doing = "retrying task " + task_id + ": ";
  if (!task.ended()) throw Error(Code::failed_precondition, doing + "it still runs");
  const auto all = change.sql.all(
      "SELECT " GUESTAGENT_REPLICA_COLUMNS " FROM replicas WHERE task_id = ? ORDER BY number", {task_id}, read_replica);
  std::vector<Replica> left;
  for (const Replica& replica : all) {
    if (replica.state != ReplicaState::succeeded) left.push_back(replica);
  }
  if (left.empty()) throw Error(Code::failed_precondition, doing + "nothing of it failed");
  if (change.sql.number("SELECT count(*) FROM cleanups WHERE task_id = ? AND kind IN ('detach_job', 'snapshot_job')",
                        {task_id}) != 0) {
    throw Error(Code::failed_precondition,
                doing + "how its last round ended on an agent that fell silent is not known yet",
                "bring that agent back; it is asked all the time");
  }

  if (task.kind == "promote" || task.kind == "eject" || task.kind == "rebuild")
    throw Error(Code::failed_precondition, doing + "the set may be another since", "ask for it anew");
  if (task.kind == "detach") {
    const auto member = change.sql.number("SELECT count(*) FROM members WHERE instance_id = ?", {left[0].instance_id});
    if (member == 0) throw Error(Code::failed_precondition, doing + left[0].instance_name + " is not a replica");
    change.sql.run(
        "UPDATE replicas SET state = 'pending', error_code = '', error = '', error_hint = '', finished_at = "
        "'' WHERE task_id = ?",
        {task_id});
  } else {
    check_source(change, change.instance(task.source_id));
    std::vector<Instance> spare = spare_hosts_for(change.sql, task.source_id);
    const auto take = [&](const std::string& id) {
      const auto found = std::find_if(spare.begin(), spare.end(), [&](const Instance& i) { return i.id == id; });
      if (found == spare.end()) return false;
      spare.erase(found);
      return true;
    };
    std::vector<Replica> homeless;
    for (const Replica& replica : left) {
      const auto made =
          change.sql.number(
              "SELECT count(*) FROM instances WHERE id = ? AND origin = 'provisioned' AND state = 'failed'",
              {replica.instance_id}) != 0;
      if (!made && (replace.count(replica.number) != 0 || !take(replica.instance_id))) homeless.push_back(replica);
    }
    if (!homeless.empty()) {
      // The hosts that were not wanted any more are no candidates.
      for (const Replica& replica : homeless) take(replica.instance_id);
      const auto others = pick(spare, task.host, static_cast<int>(homeless.size()));
      for (std::size_t n = 0; n < homeless.size(); ++n) {
        const Instance host = change.instance(others[n]);
        change.sql.run(
            "UPDATE replicas SET instance_id = ?3, instance_name = ?4, server_id = ?5 WHERE task_id = ?1 AND "
            "number = ?2",
            {task_id, homeless[n].number, host.id, host.name, change.give_server_id(host)});
        for (Replica& replica : left) {
          if (replica.number == homeless[n].number) replica.instance_id = host.id;
        }
      }
    }
    for (const Replica& replica : left) {
      change.set_instance_state(replica.instance_id, InstanceState::building);
      change.sql.run(
          "UPDATE replicas SET state = 'pending', error_code = '', error = '', error_hint = '', started_at = "
          "'', "
          "finished_at = '' WHERE task_id = ? AND number = ?",
          {task_id, replica.number});
    }
  }
  change.sql.run(
      "UPDATE tasks SET state = 'running', step = ?2, round = round + 1, cancel = 0, error_code = '', error "
      "= '', "
      "error_hint = '', warning = '', snapshot_href = '', account = '', finished_at = '', overwrite = overwrite OR ?3 "
      "WHERE id = ?1",
      {task_id, task.kind == "detach" ? "detach" : "snapshot", overwrite});
  change.touch_task(task_id);
  change.touch_topology();
  change.event(
      {.kind = "task",
       .instance_id = task.source_id,
       .task_id = task_id,
       .message = "trying again what failed: " + std::to_string(left.size()) + " of " + std::to_string(all.size())});
  const Task out = change.task(task_id);
  change.commit("retry");
  return out;
}

void State::finish(const std::string& task_id, const std::string& warning) {
  StateChange change(*db_);
  const Task task = change.running_task(task_id);
  const auto all = change.sql.all(
      "SELECT " GUESTAGENT_REPLICA_COLUMNS " FROM replicas WHERE task_id = ? ORDER BY number", {task_id}, read_replica);
  std::size_t failed = 0, cancelled = 0;
  const Replica* first = nullptr;
  for (const Replica& replica : all) {
    if (replica.state == ReplicaState::failed) ++failed;
    if (replica.state == ReplicaState::cancelled) ++cancelled;
    if (replica.state == ReplicaState::failed && first == nullptr) first = &replica;
  }
  const RunState state = failed != 0 ? RunState::failed : cancelled != 0 ? RunState::cancelled : RunState::succeeded;
  TaskError error = task.error;
  if (error.empty() && first != nullptr) {
    error = first->error;
    if (all.size() > 1) {
      error.message = std::to_string(failed) + " of " + std::to_string(all.size()) + " replicas failed; " +
                      first->instance_name + ": " + error.message;
    }
  } else if (error.empty() && cancelled != 0) {
    error = {"CANCELLED", "cancelled on request", ""};
  }
  change.sql.run(
      "UPDATE tasks SET state = ?2, step = 'done', error_code = ?3, error = ?4, error_hint = ?5, warning = "
      "?6, finished_at = ?7 "
      "WHERE id = ?1",
      {task_id, to_text(state), error.code, error.message, error.hint, warning, change.now});
  change.touch_task(task_id);
  change.event({.level = state == RunState::failed ? "error"
                         : warning.empty()         ? "info"
                                                   : "warning",
                .kind = "task",
                .instance_id = task.source_id,
                .task_id = task_id,
                .message = task.kind + " " + to_text(state) + (error.empty() ? "" : ": " + error.message) +
                           (warning.empty() ? "" : "; " + warning)});
  change.commit("finish");
}

}  // namespace guestagent::controller

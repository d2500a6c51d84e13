// A set of replicas that gets another source: how that begins, and what of it is remembered.
#include <algorithm>

#include "base/id.h"
#include "controller/state_db.h"

namespace guestagent::controller {
namespace {

std::string source_of(StateChange& change, const std::string& instance_id) {
  std::string source;
  change.sql.each("SELECT source_id FROM members WHERE instance_id = ?", {instance_id},
                  [&](const SqlRow& row) { source = row.text(0); });
  return source;
}

std::vector<Replica> replicas_of(StateChange& change, const std::string& task_id) {
  return change.sql.all("SELECT " GUESTAGENT_REPLICA_COLUMNS " FROM replicas WHERE task_id = ? ORDER BY number",
                        {task_id}, read_replica);
}

void check_free(StateChange& change, const std::string& doing, const Instance& host) {
  if (const std::string busy = task_on(change, host.id); !busy.empty()) {
    throw Error(Code::already_exists, doing + "task " + busy + " works on " + host.name,
                "wait for that task, or cancel it");
  }
}

// `first` is the one that is to take over, where that is known.
Task start(StateChange& change, const std::string& kind, const std::string& source_id, const std::string& first,
           const std::string& request, const RequestMark& mark) {
  const Instance source = change.instance(source_id);
  const std::string doing =
      kind == "eject" ? "ejecting " + source.name + ": " : "promoting " + change.instance(first).name + ": ";
  if (const std::string above = source_of(change, source_id); !above.empty()) {
    throw Error(Code::failed_precondition, doing + source.name + " follows " + change.instance(above).name + " itself",
                "only the source of a whole set can be exchanged");
  }
  std::vector<Instance> hosts;
  change.sql.each("SELECT instance_id FROM members WHERE source_id = ? ORDER BY place", {source_id},
                  [&](const SqlRow& row) { hosts.push_back(change.instance(row.text(0))); });
  std::stable_partition(hosts.begin(), hosts.end(), [&](const Instance& host) { return host.id == first; });
  if (hosts.empty())
    throw Error(Code::failed_precondition, doing + "no replica follows it",
                "GET /instances/ID/topology shows who does");
  if (kind == "promote") hosts.push_back(source);
  check_free(change, doing, source);
  for (const Instance& host : hosts) check_free(change, doing, host);

  Task task;
  task.id = new_task_id();
  task.kind = kind;
  task.step = "hand_over";
  task.source_id = source_id;
  task.target_id = first;
  task.request = request;
  task.created_at = change.now;
  insert_task(change, task, mark);
  for (std::size_t n = 0; n < hosts.size(); ++n) {
    insert_replica(change, task.id, static_cast<int>(n) + 1, hosts[n], hosts[n].server_id);
    change.touch_instance(hosts[n].id);
  }
  // What an earlier task wanted of this source is not wanted any more.
  change.sql.run("DELETE FROM cleanups WHERE kind = 'writable' AND instance_id = ?", {source_id});
  change.event({.kind = "task",
                .instance_id = source_id,
                .task_id = task.id,
                .message = kind == "eject"
                               ? "giving " + source.name + " up as source"
                               : "making " + hosts.front().name + " the source in place of " + source.name});
  return change.task(task.id);
}

}  // namespace

Task State::start_promote(const std::string& replica_id, const std::string& request, const RequestMark& mark) {
  StateChange change(*db_);
  if (auto known = known_task(change, mark)) return *known;
  const std::string source_id = source_of(change, replica_id);
  if (source_id.empty()) {
    throw Error(Code::failed_precondition, "promoting " + change.instance(replica_id).name + ": it is not a replica",
                "GET /instances/" + replica_id + " shows its topology");
  }
  const Task out = start(change, "promote", source_id, replica_id, request, mark);
  change.commit("start_promote");
  return out;
}

Task State::start_rebuild(const std::string& replica_id, const std::string& request, const RequestMark& mark) {
  StateChange change(*db_);
  if (auto known = known_task(change, mark)) return *known;
  const Instance host = change.instance(replica_id);
  const std::string doing = "rebuilding " + host.name + ": ";
  Task task;
  change.sql.each("SELECT source_id, read_only FROM members WHERE instance_id = ?", {replica_id},
                  [&](const SqlRow& row) {
                    task.source_id = row.text(0);
                    task.read_only = row.boolean(1);
                  });
  if (task.source_id.empty()) {
    throw Error(Code::failed_precondition, doing + "it is not a replica",
                "GET /instances/" + replica_id + " shows its topology");
  }
  if (change.sql.number("SELECT count(*) FROM members WHERE source_id = ?", {replica_id}) != 0) {
    throw Error(Code::failed_precondition, doing + "replicas follow it, who may need what only it has kept",
                "let them follow another source first");
  }
  check_source(change, change.instance(task.source_id));
  check_free(change, doing, host);
  task.id = new_task_id();
  task.kind = "rebuild";
  task.step = "snapshot";
  task.request = request;
  task.created_at = change.now;
  task.overwrite = true;
  insert_task(change, task, mark);
  insert_replica(change, task.id, 1, host, host.server_id != 0 ? host.server_id : host.reported_server_id);
  change.set_instance_state(host.id, InstanceState::building);
  change.event({.kind = "task",
                .instance_id = host.id,
                .task_id = task.id,
                .message = "making " + host.name + " anew from " + change.instance(task.source_id).name});
  const Task out = change.task(task.id);
  change.commit("start_rebuild");
  return out;
}

Task State::start_eject(const std::string& source_id, const std::string& request, const RequestMark& mark) {
  StateChange change(*db_);
  if (auto known = known_task(change, mark)) return *known;
  const Task out = start(change, "eject", source_id, "", request, mark);
  change.commit("start_eject");
  return out;
}

void State::target_chosen(const std::string& task_id, const std::string& instance_id) {
  StateChange change(*db_);
  change.running_task(task_id);
  change.sql.run("UPDATE tasks SET target_id = ?2 WHERE id = ?1", {task_id, instance_id});
  change.touch_task(task_id);
  change.event({.kind = "task",
                .instance_id = instance_id,
                .task_id = task_id,
                .message = change.instance(instance_id).name + " has received the most and takes over"});
  change.commit("target_chosen");
}

void State::hand_over_failed(const std::string& task_id, const HandOverEnd& end) {
  StateChange change(*db_);
  const Task task = change.running_task(task_id);
  for (const Replica& replica : replicas_of(change, task_id)) {
    if (!replica.ended())
      change.end_replica(replica, end.cancelled ? ReplicaState::cancelled : ReplicaState::failed, end.error);
  }
  if (end.restore) change.add_cleanup(task, "writable", task.source_id, "");
  if (end.opened) {
    change.leave_topology(task.target_id);
    change.set_instance_state(task.target_id, InstanceState::active, end.error.message);
  }
  change.sql.run("UPDATE tasks SET error_code = ?2, error = ?3, error_hint = ?4 WHERE id = ?1",
                 {task_id, end.error.code, end.error.message, end.error.hint});
  change.set_step(task_id, "clean_up");
  change.event({.level = end.cancelled ? "info" : "error",
                .kind = "task",
                .instance_id = task.source_id,
                .task_id = task_id,
                .message = "the source was not exchanged: " + end.error.message});
  change.commit("hand_over_failed");
}

void State::handed_over(const std::string& task_id, const Secret& metadata, const std::string& account) {
  StateChange change(*db_);
  const Task task = change.running_task(task_id);
  change.sql.run("INSERT OR REPLACE INTO snapshots (task_id, metadata) VALUES (?,?)", {task_id, metadata.reveal()});
  change.sql.run("UPDATE tasks SET account = ?2 WHERE id = ?1", {task_id, account});
  record_account(change, task, task.target_id, account);
  for (const Replica& replica : replicas_of(change, task_id)) {
    if (replica.instance_id == task.target_id) change.end_replica(replica, ReplicaState::succeeded, {});
  }
  // What was wanted of it when it was another's source, or one that was gone.
  change.sql.run("DELETE FROM cleanups WHERE kind IN ('fence', 'writable') AND instance_id = ?", {task.target_id});
  if (task.kind == "eject") change.add_cleanup(task, "fence", task.source_id, "");
  change.set_step(task_id, "follow");
  change.event({.kind = "task",
                .instance_id = task.target_id,
                .task_id = task_id,
                .message = change.instance(task.target_id).name + " takes writes in place of " +
                           change.instance(task.source_id).name});
  change.commit("handed_over");
}

void State::follower_ended(const std::string& task_id, int number, const TaskError& error, bool cancelled) {
  StateChange change(*db_);
  change.running_task(task_id);
  const Replica replica = change.replica(task_id, number);
  if (replica.ended()) return;
  const ReplicaState state = error.empty() ? ReplicaState::succeeded
                             : cancelled   ? ReplicaState::cancelled
                                           : ReplicaState::failed;
  change.end_replica(replica, state, error);
  change.event(
      {.level = state == ReplicaState::failed ? "error" : "info",
       .kind = "replica",
       .instance_id = replica.instance_id,
       .task_id = task_id,
       .message = replica.instance_name +
                  (error.empty() ? " follows the new source" : " does not follow the new source: " + error.message)});
  change.commit("follower_ended");
}

void State::set_reshaped(const std::string& task_id) {
  StateChange change(*db_);
  const Task task = change.running_task(task_id);
  change.leave_topology(task.target_id);
  change.set_instance_state(task.target_id, InstanceState::active);
  for (const Replica& replica : replicas_of(change, task_id)) {
    if (replica.instance_id == task.target_id || replica.state != ReplicaState::succeeded) continue;
    // Its place and read_only stay; the former source comes last.
    change.sql.run("UPDATE members SET source_id = ?2, account = ?3 WHERE instance_id = ?1",
                   {replica.instance_id, task.target_id, task.account});
    if (replica.instance_id == task.source_id) {
      change.sql.run(
          "INSERT INTO members (instance_id, source_id, read_only, account, joined_at, place) "
          "SELECT ?1, ?2, 1, ?3, ?4, rowid * 10000 + ?5 FROM tasks WHERE id = ?6",
          {replica.instance_id, task.target_id, task.account, change.now, replica.number, task.id});
    }
    change.touch_instance(replica.instance_id);
  }
  change.sql.run("DELETE FROM snapshots WHERE task_id = ?", {task_id});
  change.set_step(task_id, "clean_up");
  change.release_accounts(task_id);
  change.touch_topology();
  change.event({.kind = "topology",
                .instance_id = task.target_id,
                .task_id = task_id,
                .message = change.instance(task.target_id).name + " is the source"});
  change.commit("set_reshaped");
}

}  // namespace guestagent::controller

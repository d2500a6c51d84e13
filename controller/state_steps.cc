// What happens to a running task, and what is still to be cleaned up after it.
#include "controller/state_db.h"

namespace guestagent::controller {

Cleanup read_cleanup(const SqlRow& r) {
  return {r.integer(0), r.text(1), static_cast<int>(r.integer(2)), r.text(3),
          r.text(4),    r.text(5), static_cast<int>(r.integer(6)), static_cast<int>(r.integer(7)),
          r.text(8)};
}

namespace {

std::string account_of(StateChange& change, const std::string& task_id, int round) {
  std::string name;
  change.sql.each("SELECT name FROM accounts WHERE task_id = ? AND round = ? AND released = 0", {task_id, round},
                  [&](const SqlRow& row) { name = row.text(0); });
  return name;
}

// Two may have asked the same agent.
bool is_open(StateChange& change, std::int64_t cleanup) {
  return change.sql.number("SELECT count(*) FROM cleanups WHERE id = ?", {cleanup}) != 0;
}

// One that was to be made anew is the member that it was.
InstanceState put_back_as(const Task& task) {
  return task.kind == "rebuild" ? InstanceState::active : InstanceState::spare;
}

void end_detach(StateChange& change, const Task& task, const Replica& replica) {
  change.leave_topology(replica.instance_id);
  change.touch_instance(task.source_id);
  change.set_instance_state(replica.instance_id, InstanceState::active);
  change.event({.kind = "topology",
                .instance_id = replica.instance_id,
                .task_id = task.id,
                .message = replica.instance_name + " stands on its own"});
  change.release_accounts(task.id);
}

}  // namespace

void record_account(StateChange& change, const Task& task, const std::string& source_id, const std::string& account) {
  change.sql.run(
      "INSERT INTO accounts (source_id, name, task_id, round) VALUES (?,?,?,?) ON CONFLICT (source_id, name) "
      "DO UPDATE "
      "SET task_id = excluded.task_id, round = excluded.round, released = 0",
      {source_id, account, task.id, task.round});
}

void State::snapshot_taken(const std::string& task_id, const Secret& metadata, const std::string& href,
                           const std::string& account) {
  StateChange change(*db_);
  const Task task = change.running_task(task_id);
  change.sql.run("INSERT OR REPLACE INTO snapshots (task_id, metadata) VALUES (?,?)", {task_id, metadata.reveal()});
  change.sql.run("UPDATE tasks SET snapshot_href = ?2, account = ?3 WHERE id = ?1", {task_id, href, account});
  record_account(change, task, task.source_id, account);
  change.set_step(task_id, "replicas");
  change.event(
      {.kind = "task", .instance_id = task.source_id, .task_id = task_id, .message = "the snapshot is complete"});
  change.commit("snapshot_taken");
}

Secret State::snapshot_metadata(const std::string& task_id) {
  std::lock_guard lock(db_->mutex);
  Secret out;
  db_->sql.each("SELECT metadata FROM snapshots WHERE task_id = ?", {task_id},
                [&](const SqlRow& row) { out = Secret(row.text(0)); });
  return out;
}

void State::snapshot_failed(const std::string& task_id, const TaskError& error, bool lost, bool cancelled) {
  StateChange change(*db_);
  const Task task = change.running_task(task_id);
  const TaskError told{error.code, "no snapshot of the source: " + error.message, error.hint};
  if (lost) change.add_cleanup(task, "snapshot_job", task.source_id, task.job_id("snapshot"));
  for (const Replica& replica :
       change.sql.all("SELECT " GUESTAGENT_REPLICA_COLUMNS " FROM replicas WHERE task_id = ? ORDER BY number",
                      {task_id}, read_replica)) {
    if (replica.ended()) continue;
    change.end_replica(replica, cancelled ? ReplicaState::cancelled : ReplicaState::failed, told);
    const bool made = change.instance(replica.instance_id).address.empty();
    change.set_instance_state(replica.instance_id, made ? InstanceState::failed : put_back_as(task));
  }
  change.sql.run("UPDATE tasks SET error_code = ?2, error = ?3, error_hint = ?4 WHERE id = ?1",
                 {task_id, told.code, told.message, told.hint});
  change.set_step(task_id, "clean_up");
  change.touch_topology();
  change.commit("snapshot_failed");
}

void State::replica_state(const std::string& task_id, int number, ReplicaState state) {
  StateChange change(*db_);
  change.running_task(task_id);
  change.sql.run(
      "UPDATE replicas SET state = ?3, started_at = CASE started_at WHEN '' THEN ?4 ELSE started_at END "
      "WHERE task_id = ?1 AND number = ?2",
      {task_id, number, to_text(state), change.now});
  change.touch_task(task_id);
  change.commit("replica_" + to_text(state));
}

void State::host_made(const std::string& task_id, int number, const std::string& address) {
  StateChange change(*db_);
  const Replica replica = change.replica(task_id, number);
  change.sql.run("UPDATE instances SET address = ?2 WHERE id = ?1", {replica.instance_id, address});
  change.sql.run("UPDATE replicas SET state = 'ready' WHERE task_id = ? AND number = ?", {task_id, number});
  change.touch_instance(replica.instance_id);
  change.touch_task(task_id);
  change.commit("host_made");
}

void State::replica_serving(const std::string& task_id, int number) {
  StateChange change(*db_);
  const Task task = change.running_task(task_id);
  const Replica replica = change.replica(task_id, number);
  if (replica.state == ReplicaState::succeeded) return;
  change.end_replica(replica, ReplicaState::succeeded, {});
  change.join_topology(task, change.instance(replica.instance_id), number, task.account);
  change.event({.kind = "replica",
                .instance_id = replica.instance_id,
                .task_id = task_id,
                .message = replica.instance_name + " follows"});
  change.commit("replica_serving");
}

void State::replica_failed(const std::string& task_id, int number, const TaskError& error, HostAfter host,
                           bool cancelled) {
  StateChange change(*db_);
  const Task task = change.running_task(task_id);
  const Replica replica = change.replica(task_id, number);
  if (replica.ended()) return;
  change.end_replica(replica, cancelled ? ReplicaState::cancelled : ReplicaState::failed, error);
  const std::string why = cancelled && host != HostAfter::lost ? "" : error.message;
  switch (host) {
    case HostAfter::put_back:
      change.set_instance_state(replica.instance_id, put_back_as(task), why);
      break;
    case HostAfter::lost:
      change.set_instance_state(replica.instance_id, InstanceState::lost, why);
      change.add_cleanup(task, "attach_job", replica.instance_id, task.job_id("attach-" + std::to_string(number)),
                         number);
      break;
    case HostAfter::to_remove:
      change.set_instance_state(replica.instance_id, InstanceState::failed, why);
      change.sql.run("UPDATE instances SET address = NULL WHERE id = ?", {replica.instance_id});
      change.add_cleanup(task, "host", replica.instance_id, "", number);
      break;
  }
  change.touch_topology();
  change.event({.level = cancelled ? "info" : "error",
                .kind = "replica",
                .instance_id = replica.instance_id,
                .task_id = task_id,
                .message = replica.instance_name + (cancelled ? " was cancelled" : " failed: " + error.message)});
  change.commit("replica_failed");
}

void State::replicas_ended(const std::string& task_id) {
  StateChange change(*db_);
  const Task task = change.running_task(task_id);
  change.sql.run("DELETE FROM snapshots WHERE task_id = ?", {task_id});
  change.add_cleanup(task, "snapshot", task.source_id, task.snapshot_href);
  change.set_step(task_id, "clean_up");
  change.release_accounts(task_id);
  change.commit("replicas_ended");
}

void State::detached(const std::string& task_id) {
  StateChange change(*db_);
  const Task task = change.running_task(task_id);
  const Replica replica = change.replica(task_id, 1);
  change.end_replica(replica, ReplicaState::succeeded, {});
  end_detach(change, task, replica);
  change.set_step(task_id, "clean_up");
  change.commit("detached");
}

void State::detach_failed(const std::string& task_id, const TaskError& error, bool lost, bool cancelled) {
  StateChange change(*db_);
  const Task task = change.running_task(task_id);
  const Replica replica = change.replica(task_id, 1);
  change.end_replica(replica, cancelled ? ReplicaState::cancelled : ReplicaState::failed, error);
  if (lost) change.add_cleanup(task, "detach_job", replica.instance_id, task.job_id("detach"), 1);
  change.set_step(task_id, "clean_up");
  change.touch_instance(replica.instance_id);
  change.commit("detach_failed");
}

std::vector<Cleanup> State::cleanups_of(const std::string& task_id) {
  std::lock_guard lock(db_->mutex);
  return db_->sql.all("SELECT " GUESTAGENT_CLEANUP_COLUMNS
                      " FROM cleanups WHERE task_id = ? AND kind IN ('snapshot', 'account', 'host', 'writable') "
                      "ORDER BY id",
                      {task_id}, read_cleanup);
}

std::vector<Cleanup> State::orphan_cleanups() {
  std::lock_guard lock(db_->mutex);
  return db_->sql.all("SELECT " GUESTAGENT_CLEANUP_COLUMNS
                      " FROM cleanups WHERE kind IN ('snapshot_job', 'attach_job', 'detach_job', 'fence') OR "
                      "task_id NOT IN (SELECT id FROM tasks WHERE state = 'running') ORDER BY id",
                      {}, read_cleanup);
}

void State::cleanup_done(std::int64_t id) {
  StateChange change(*db_);
  const auto done =
      change.sql.one("SELECT " GUESTAGENT_CLEANUP_COLUMNS " FROM cleanups WHERE id = ?", {id}, read_cleanup);
  if (!done) return;
  change.end_cleanup(id);
  if (done->kind == "account") {
    change.sql.run("DELETE FROM accounts WHERE source_id = ? AND name = ? AND released = 1",
                   {done->instance_id, done->subject});
  }
  if (done->kind == "fence") {
    change.event({.kind = "cleanup",
                  .instance_id = done->instance_id,
                  .task_id = done->task_id,
                  .message = change.instance(done->instance_id).name +
                             " answers again and refuses writes: it is no source any more"});
    change.release_accounts("");
  } else if (!done->error.empty()) {
    change.event({.kind = "cleanup",
                  .instance_id = done->instance_id,
                  .task_id = done->task_id,
                  .message = "removed at last: " + done->kind + (done->subject.empty() ? "" : " " + done->subject)});
  }
  change.touch_task(done->task_id);
  change.commit("cleanup_done");
}

void State::cleanup_failed(std::int64_t id, const std::string& error, bool next_try) {
  StateChange change(*db_);
  change.sql.run("UPDATE cleanups SET tries = tries + ?, error = ? WHERE id = ?", {next_try, error, id});
  change.commit("cleanup_failed");
}

void State::lost_attach_resolved(const Cleanup& cleanup, bool follows) {
  StateChange change(*db_);
  if (!is_open(change, cleanup.id)) return;
  const Instance host = change.instance(cleanup.instance_id);
  Task task = change.task(cleanup.task_id);
  if (follows) {
    const std::string account = account_of(change, cleanup.task_id, cleanup.round);
    change.join_topology(task, host, cleanup.number, account);
    change.sql.run(
        "UPDATE replicas SET state = 'succeeded', error_code = '', error = '', error_hint = '' WHERE task_id "
        "= ? AND "
        "number = ? AND instance_id = ?",
        {cleanup.task_id, cleanup.number, host.id});
  } else if (host.state == InstanceState::lost) {
    const bool made = host.origin == "provisioned" && task.kind != "rebuild";
    change.set_instance_state(host.id, made ? InstanceState::failed : put_back_as(task), host.last_error);
    if (made) {
      change.sql.run("UPDATE instances SET address = NULL WHERE id = ?", {host.id});
      change.add_cleanup(task, "host", host.id, "", cleanup.number);
    }
  }
  change.end_cleanup(cleanup.id);
  change.release_accounts("");
  change.touch_task(cleanup.task_id);
  change.touch_topology();
  change.event({.kind = "replica",
                .instance_id = host.id,
                .task_id = cleanup.task_id,
                .message = host.name + (follows ? " answers again and follows after all"
                                                : " answers again; the host is as it was")});
  change.commit("lost_attach_resolved");
}

void State::lost_detach_resolved(const Cleanup& cleanup, bool was_detached) {
  StateChange change(*db_);
  if (!is_open(change, cleanup.id)) return;
  const Task task = change.task(cleanup.task_id);
  if (was_detached) {
    const Replica replica = change.replica(cleanup.task_id, 1);
    change.sql.run(
        "UPDATE replicas SET state = 'succeeded', error_code = '', error = '', error_hint = '' WHERE task_id "
        "= ?",
        {task.id});
    end_detach(change, task, replica);
  }
  change.end_cleanup(cleanup.id);
  change.touch_task(task.id);
  change.commit("lost_detach_resolved");
}

void State::lost_snapshot_resolved(const Cleanup& cleanup, const std::string& href, const std::string& account) {
  StateChange change(*db_);
  if (!is_open(change, cleanup.id)) return;
  const Task task = change.task(cleanup.task_id);
  if (!href.empty()) change.add_cleanup(task, "snapshot", cleanup.instance_id, href);
  if (!account.empty()) change.add_cleanup(task, "account", cleanup.instance_id, account);
  change.end_cleanup(cleanup.id);
  change.commit("lost_snapshot_resolved");
}

}  // namespace guestagent::controller

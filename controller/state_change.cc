#include <set>

#include "base/journal.h"
#include "base/text.h"
#include "controller/state_db.h"

namespace guestagent::controller {
namespace {

// FNV-1a: the same host gets the same number wherever it is worked out.
std::uint64_t hash(std::string_view text) {
  std::uint32_t h = 2166136261u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 16777619u;
  return h;
}

// Small numbers are what people and packages give to servers by hand.
constexpr std::uint64_t kFirstServerId = 100000;
constexpr std::uint64_t kLastServerId = 4294967295;

}  // namespace

StateChange::StateChange(State::Db& db) : sql(db.sql), now(format_utc(db.clock.now())), db_(db), lock_(db.mutex) {
  sql.run("BEGIN IMMEDIATE");
}

StateChange::~StateChange() {
  if (!open_) return;
  try {
    sql.run("ROLLBACK");
  } catch (const Error&) {
    // The database has undone it itself, as it does when the disk is full.
  }
}

void StateChange::commit(const std::string& label) {
  failpoint("state:" + label + ":before");
  sql.run("COMMIT");
  open_ = false;
  lock_.unlock();
  failpoint("state:" + label + ":after");
  if (db_.observer && !changes_.empty()) db_.observer(changes_);
}

void StateChange::event(Event event) {
  event.at = now;
  sql.run("INSERT INTO events (at, level, kind, instance_id, task_id, message) VALUES (?,?,?,?,?,?)",
          {event.at, event.level, event.kind, event.instance_id, event.task_id, event.message});
  event.seq = sql.last_id();
  changes_.push_back({Change::Kind::event, {}, std::move(event)});
}

std::optional<Repeated> StateChange::repeated(const RequestMark& mark) {
  if (mark.key.empty()) return std::nullopt;
  std::optional<Repeated> out;
  sql.each("SELECT task_id, instance_id, forgot, digest FROM requests WHERE key = ?", {mark.key},
           [&](const SqlRow& row) {
             out = Repeated{row.text(0), row.text(1), row.boolean(2)};
             if (row.text(3) == mark.digest) return;
             throw Error(Code::already_exists,
                         "Idempotency-Key " + printable(mark.key) + ": it was used for another request, of " +
                             (out->task_id.empty() ? "instance " + out->instance_id : "task " + out->task_id),
                         "use a new key for a new request; the same key only for the same method, path and body");
           });
  return out;
}

void StateChange::note(const RequestMark& mark, const Repeated& outcome) {
  if (mark.key.empty()) return;
  sql.run("INSERT INTO requests (key, digest, task_id, instance_id, forgot, at) VALUES (?,?,?,?,?,?)",
          {mark.key, mark.digest, outcome.task_id, outcome.instance_id, outcome.forgot, now});
}

Instance StateChange::instance(const std::string& id) {
  auto found = sql.one("SELECT " GUESTAGENT_INSTANCE_COLUMNS " FROM instances WHERE id = ?", {id}, read_instance);
  if (!found) throw Error(Code::not_found, "looking for instance " + printable(id) + ": there is none");
  return std::move(*found);
}

Task StateChange::task(const std::string& id) {
  auto found = sql.one("SELECT " GUESTAGENT_TASK_COLUMNS " FROM tasks WHERE id = ?", {id}, read_task);
  if (!found) throw Error(Code::not_found, "looking for task " + printable(id) + ": there is none");
  return std::move(*found);
}

Task StateChange::running_task(const std::string& id) {
  Task found = task(id);
  if (found.ended()) throw Error(Code::failed_precondition, "task " + id + ": it has ended: " + to_text(found.state));
  return found;
}

Replica StateChange::replica(const std::string& task_id, int number) {
  auto found = sql.one("SELECT " GUESTAGENT_REPLICA_COLUMNS " FROM replicas WHERE task_id = ? AND number = ?",
                       {task_id, number}, read_replica);
  if (!found) throw Error(Code::internal, "task " + task_id + ": it has no replica " + std::to_string(number));
  return std::move(*found);
}

void StateChange::set_instance_state(const std::string& id, InstanceState state, const std::string& last_error) {
  sql.run("UPDATE instances SET state = ?2, last_error = ?3 WHERE id = ?1", {id, to_text(state), last_error});
  touch_instance(id);
}

void StateChange::set_step(const std::string& task_id, const std::string& step) {
  sql.run("UPDATE tasks SET step = ?2 WHERE id = ?1", {task_id, step});
  touch_task(task_id);
}

void StateChange::end_replica(const Replica& replica, ReplicaState state, const TaskError& error) {
  sql.run(
      "UPDATE replicas SET state = ?3, error_code = ?4, error = ?5, error_hint = ?6, finished_at = ?7 "
      "WHERE task_id = ?1 AND number = ?2",
      {replica.task_id, replica.number, to_text(state), error.code, error.message, error.hint, now});
  touch_task(replica.task_id);
}

void StateChange::join_topology(const Task& task, const Instance& replica, int number, const std::string& account) {
  sql.run(
      "INSERT INTO members (instance_id, source_id, read_only, account, joined_at, place) "
      "SELECT ?, ?, ?, ?, ?, rowid * 10000 + ? FROM tasks WHERE id = ? ON CONFLICT (instance_id) DO UPDATE SET "
      "source_id = excluded.source_id, account = excluded.account, joined_at = excluded.joined_at",
      {replica.id, task.source_id, task.read_only, account, now, number, task.id});
  set_instance_state(replica.id, InstanceState::active);
  touch_instance(task.source_id);
  touch_topology();
}

void StateChange::leave_topology(const std::string& instance_id) {
  sql.run("DELETE FROM members WHERE instance_id = ?", {instance_id});
  touch_instance(instance_id);
  touch_topology();
}

void StateChange::add_cleanup(const Task& task, const std::string& kind, const std::string& instance_id,
                              const std::string& subject, int number) {
  sql.run("INSERT INTO cleanups (task_id, round, kind, instance_id, subject, number) VALUES (?,?,?,?,?,?)",
          {task.id, task.round, kind, instance_id, subject, number});
}

void StateChange::end_cleanup(std::int64_t id) {
  sql.run("DELETE FROM cleanups WHERE id = ?", {id});
}

std::vector<std::string> StateChange::release_accounts(const std::string& for_task) {
  struct Account {
    std::string source_id, name, task_id;
    int round;
  };
  std::vector<Account> unused;
  sql.each(
      "SELECT a.source_id, a.name, a.task_id, a.round FROM accounts a WHERE a.released = 0 "
      "AND NOT EXISTS (SELECT 1 FROM members m WHERE m.source_id = a.source_id AND m.account = a.name) "
      // A source that another has taken over from must write nothing before it refuses writes.
      "AND NOT EXISTS (SELECT 1 FROM cleanups c WHERE c.kind = 'fence' AND c.instance_id = a.source_id) "
      "AND NOT EXISTS (SELECT 1 FROM cleanups c WHERE c.kind = 'attach_job' AND c.task_id = a.task_id AND "
      "c.round = a.round) "
      "AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.id = a.task_id AND t.round = a.round AND t.state = "
      "'running' "
      "                AND t.step IN ('snapshot', 'replicas', 'follow'))",
      {}, [&](const SqlRow& row) {
        unused.push_back({row.text(0), row.text(1), row.text(2), static_cast<int>(row.integer(3))});
      });
  for (const Account& account : unused) {
    sql.run("UPDATE accounts SET released = 1 WHERE source_id = ? AND name = ?", {account.source_id, account.name});
    sql.run(
        "INSERT INTO cleanups (task_id, round, kind, instance_id, subject, number) VALUES "
        "(?,?,'account',?,?,0)",
        {for_task.empty() ? account.task_id : for_task, account.round, account.source_id, account.name});
  }
  std::vector<std::string> names;
  for (const Account& account : unused) names.push_back(account.name);
  return names;
}

std::uint64_t StateChange::give_server_id(const Instance& instance) {
  if (instance.server_id != 0) return instance.server_id;
  std::set<std::uint64_t> taken;
  sql.each("SELECT server_id, reported_server_id FROM instances WHERE id <> ?", {instance.id}, [&](const SqlRow& row) {
    taken.insert(row.uint(0));
    taken.insert(row.uint(1));
  });
  std::uint64_t id = kFirstServerId + hash(instance.id) % (kLastServerId - kFirstServerId);
  while (taken.count(id) != 0) id = id == kLastServerId ? kFirstServerId : id + 1;
  sql.run("UPDATE instances SET server_id = ? WHERE id = ?", {id, instance.id});
  return id;
}

}  // namespace guestagent::controller

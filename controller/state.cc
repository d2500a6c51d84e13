#include "controller/state.h"

#include <algorithm>
#include <map>

#include "base/id.h"
#include "base/journal.h"
#include "base/text.h"
#include "controller/state_db.h"

namespace guestagent::controller {
namespace {

constexpr int kSchemaVersion = 3;

constexpr const char* kSchema = R"(
CREATE TABLE instances (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, address TEXT UNIQUE, flavor TEXT NOT NULL, availability_zone TEXT NOT NULL,
  volume_size INTEGER NOT NULL, nics TEXT NOT NULL, origin TEXT NOT NULL, state TEXT NOT NULL, server_id INTEGER UNIQUE,
  reported_server_id INTEGER NOT NULL, last_error TEXT NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE members (
  instance_id TEXT PRIMARY KEY REFERENCES instances(id), source_id TEXT NOT NULL REFERENCES instances(id),
  read_only INTEGER NOT NULL, account TEXT NOT NULL, joined_at TEXT NOT NULL, place INTEGER NOT NULL, CHECK (instance_id <> source_id));
CREATE INDEX members_by_source ON members(source_id);
CREATE TABLE tasks (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, step TEXT NOT NULL, round INTEGER NOT NULL, source_id TEXT NOT NULL,
  request TEXT NOT NULL, flavor TEXT NOT NULL, availability_zone TEXT NOT NULL, volume_size INTEGER NOT NULL, nics TEXT NOT NULL,
  read_only INTEGER NOT NULL, cancel INTEGER NOT NULL DEFAULT 0, error_code TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '',
  error_hint TEXT NOT NULL DEFAULT '', warning TEXT NOT NULL DEFAULT '', snapshot_href TEXT NOT NULL DEFAULT '',
  account TEXT NOT NULL DEFAULT '', created_at TEXT NOT NULL, finished_at TEXT NOT NULL DEFAULT '', request_key TEXT UNIQUE);
CREATE INDEX tasks_by_state ON tasks(state);
CREATE TABLE replicas (
  task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE, number INTEGER NOT NULL, instance_id TEXT NOT NULL,
  instance_name TEXT NOT NULL, state TEXT NOT NULL, server_id INTEGER NOT NULL, error_code TEXT NOT NULL DEFAULT '',
  error TEXT NOT NULL DEFAULT '', error_hint TEXT NOT NULL DEFAULT '', started_at TEXT NOT NULL DEFAULT '',
  finished_at TEXT NOT NULL DEFAULT '', PRIMARY KEY (task_id, number));
CREATE INDEX replicas_by_instance ON replicas(instance_id);
CREATE TABLE snapshots (task_id TEXT PRIMARY KEY REFERENCES tasks(id) ON DELETE CASCADE, metadata TEXT NOT NULL);
CREATE TABLE accounts (
  source_id TEXT NOT NULL REFERENCES instances(id), name TEXT NOT NULL, task_id TEXT NOT NULL, round INTEGER NOT NULL,
  released INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (source_id, name));
CREATE TABLE cleanups (
  id INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL,
  instance_id TEXT NOT NULL REFERENCES instances(id), subject TEXT NOT NULL, number INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
  error TEXT NOT NULL DEFAULT '');
CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, level TEXT NOT NULL, kind TEXT NOT NULL, instance_id TEXT NOT NULL,
  task_id TEXT NOT NULL, message TEXT NOT NULL);
CREATE INDEX events_by_time ON events(at);
PRAGMA user_version = 1;
)";

// A key of an older version belongs to a request that is not known: whatever comes with it is another one.
constexpr const char* kToSchema2 = R"(
CREATE TABLE requests (
  key TEXT PRIMARY KEY, digest TEXT NOT NULL, task_id TEXT NOT NULL, instance_id TEXT NOT NULL, forgot INTEGER NOT NULL, at TEXT NOT NULL);
INSERT INTO requests SELECT request_key, '', id, '', 0, created_at FROM tasks WHERE request_key IS NOT NULL;
UPDATE tasks SET request_key = NULL;
ALTER TABLE tasks ADD COLUMN overwrite INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN has_data INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = 2;
)";

constexpr const char* kToSchema3 = R"(
ALTER TABLE tasks ADD COLUMN target_id TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 3;
)";

FileLock own(const fs::path& file) {
  auto lock = FileLock::try_take(file.string() + ".lock");
  if (!lock) {
    throw Error(Code::unavailable, "opening the controller's state: " + file.string() + ": another controller uses it",
                "stop the other one, or give this one a controller.state of its own");
  }
  return std::move(*lock);
}

}  // namespace

State::Db::Db(const fs::path& file, Clock& c) : owner(own(file)), sql(file), clock(c) {
  const auto version = sql.number("PRAGMA user_version");
  if (version > kSchemaVersion) {
    throw Error(Code::failed_precondition,
                "opening the controller's state: " + file.string() + ": a newer guestagent wrote it (schema " +
                    std::to_string(version) + ", this one knows " + std::to_string(kSchemaVersion) + ")",
                "upgrade guestagent");
  }
  for (const auto& [to, script] : {std::pair(1, kSchema), std::pair(2, kToSchema2), std::pair(3, kToSchema3)}) {
    if (version >= to) continue;
    sql.script("BEGIN IMMEDIATE");
    sql.script(script);
    sql.script("COMMIT");
  }
}

State::State(const fs::path& file, Clock& clock) : db_(std::make_unique<Db>(file, clock)) {}
State::~State() = default;
void State::observe(Observer observer) {
  db_->observer = std::move(observer);
}

Instance read_instance(const SqlRow& r) {
  Instance i;
  i.id = r.text(0);
  i.name = r.text(1);
  i.address = r.text(2);
  i.host = {r.text(3), r.text(4), r.uint(5), r.text(6)};
  i.origin = r.text(7);
  i.state = from_stored<InstanceState>(r.text(8));
  i.server_id = r.uint(9);
  i.reported_server_id = r.uint(10);
  i.last_error = r.text(11);
  i.created_at = r.text(12);
  i.has_data = r.boolean(13);
  return i;
}

Member read_member(const SqlRow& r) {
  return {r.text(0), r.text(1), r.boolean(2), r.text(3), r.text(4)};
}

std::optional<Repeated> State::repeated(const RequestMark& mark) {
  return mark.key.empty() ? std::nullopt : StateChange(*db_).repeated(mark);
}

Instance State::add_instance(const NewInstance& in, const RequestMark& mark) {
  StateChange change(*db_);
  if (const auto known = change.repeated(mark)) return change.instance(known->instance_id);
  const std::string id = in.id.empty() ? new_uuid() : in.id;
  const std::string name = in.name.empty() ? id : in.name;
  if (change.sql.number("SELECT count(*) FROM instances WHERE id = ?", {id}) != 0) {
    throw Error(Code::already_exists, "registering a host: an instance has the id " + id + " already");
  }
  change.sql.each("SELECT id FROM instances WHERE address = ?", {in.address}, [&](const SqlRow& row) {
    throw Error(Code::already_exists,
                "registering a host: " + in.address + ": instance " + row.text(0) + " has this agent already");
  });
  change.sql.each("SELECT id FROM instances WHERE name IN (?1, ?2) OR id = ?1", {name, id}, [&](const SqlRow& row) {
    throw Error(Code::already_exists,
                "registering a host: " + printable(name) + ": instance " + row.text(0) + " has this name already",
                "give it a name of its own: \"name\" in the request (guestagent register --name)");
  });
  change.sql.run("INSERT INTO instances (" GUESTAGENT_INSTANCE_COLUMNS
                 ") VALUES (?,?,?,?,?,?,?,'registered',?,NULL,?,'',?,?)",
                 {id, name, in.address, in.host.flavor, in.host.availability_zone, in.host.volume_size, in.host.nics,
                  to_text(in.spare ? InstanceState::spare : InstanceState::active), in.reported_server_id, change.now,
                  in.has_data});
  change.touch_instance(id);
  change.touch_topology();
  change.event({.kind = "registered", .instance_id = id, .message = name + " was registered"});
  change.note(mark, {.instance_id = id});
  const Instance out = change.instance(id);
  change.commit("add_instance");
  return out;
}

std::optional<Instance> State::find_instance(const std::string& id) {
  std::lock_guard lock(db_->mutex);
  return db_->sql.one("SELECT " GUESTAGENT_INSTANCE_COLUMNS " FROM instances WHERE id = ?", {id}, read_instance);
}

Instance State::instance(const std::string& id) {
  std::lock_guard lock(db_->mutex);
  auto found = db_->sql.one("SELECT " GUESTAGENT_INSTANCE_COLUMNS " FROM instances WHERE id = ?", {id}, read_instance);
  if (found) return *found;
  const auto named =
      db_->sql.all("SELECT " GUESTAGENT_INSTANCE_COLUMNS " FROM instances WHERE name = ?", {id}, read_instance);
  if (named.size() == 1) return named[0];
  const std::string doing = "looking for instance " + printable(id) + ": ";
  if (named.empty()) {
    throw Error(Code::not_found, doing + "there is none",
                "GET /instances (guestagent instances) lists them with their ids");
  }
  std::string ids;
  for (const Instance& one : named) ids += (ids.empty() ? "" : ", ") + one.id;
  throw Error(Code::failed_precondition, doing + "several have this name", "say which by its id: " + ids);
}

std::vector<Instance> State::instances() {
  std::lock_guard lock(db_->mutex);
  return db_->sql.all("SELECT " GUESTAGENT_INSTANCE_COLUMNS " FROM instances ORDER BY rowid", {}, read_instance);
}

std::vector<Instance> State::spare_hosts(const std::string& source_id) {
  std::lock_guard lock(db_->mutex);
  return spare_hosts_for(db_->sql, source_id);
}

void State::forget_instance(const std::string& id, bool force, const RequestMark& mark) {
  StateChange change(*db_);
  if (change.repeated(mark)) return;
  const Instance instance = change.instance(id);
  const auto refuse = [&](const std::string& why, const char* hint) {
    throw Error(Code::failed_precondition, "forgetting instance " + instance.name + ": " + why, hint);
  };
  if (change.sql.number("SELECT count(*) FROM members WHERE source_id = ?", {id}) != 0) {
    refuse("replicas follow it", "detach or forget them first");
  }
  if (change.sql.number("SELECT count(*) FROM tasks t WHERE t.state = 'running' AND (t.source_id = ?1 OR EXISTS "
                        "(SELECT 1 FROM replicas r WHERE r.task_id = t.id AND r.instance_id = ?1))",
                        {id}) != 0) {
    refuse("a running task needs it", "wait for the task, or cancel it");
  }
  if (!force) {
    if (change.sql.number("SELECT count(*) FROM members WHERE instance_id = ?", {id}) != 0) {
      refuse("it is a replica",
             "detach it first; force forgets it as it is: still following, by an account that stays on its source");
    }
    if (change.sql.number("SELECT count(*) FROM cleanups WHERE instance_id = ? AND kind IN "
                          "('snapshot','account','host','snapshot_job')",
                          {id}) != 0) {
      refuse("something of a task is still to be removed there",
             "wait until its agent answers; force gives the removal up");
    }
  }
  std::string told = instance.name + " was forgotten";
  // It goes on following, so what it follows with stays, and nobody drops it any more.
  std::string source_id, account;
  change.sql.each("SELECT source_id, account FROM members WHERE instance_id = ?", {id}, [&](const SqlRow& row) {
    source_id = row.text(0);
    account = row.text(1);
  });
  if (!source_id.empty()) {
    change.sql.run("UPDATE accounts SET released = 2 WHERE source_id = ? AND name = ?", {source_id, account});
    told += "; it goes on following " + change.instance(source_id).name;
    if (!account.empty()) told += ", where its replication account " + account + " stays";
  }
  change.leave_topology(id);
  change.sql.run("DELETE FROM cleanups WHERE instance_id = ?", {id});
  change.sql.run("DELETE FROM accounts WHERE source_id = ?", {id});
  for (const std::string& dropped : change.release_accounts(""))
    told += "; the replication account " + dropped + ", which nobody else uses, is dropped";
  change.sql.run("DELETE FROM instances WHERE id = ?", {id});
  change.touch_instance(id);
  change.touch_topology();
  change.event({.kind = "forgotten", .instance_id = id, .message = told});
  change.note(mark, {.instance_id = id, .forgot = true});
  change.commit("forget_instance");
}

void State::set_has_data(const std::string& id, bool has_data) {
  StateChange change(*db_);
  change.sql.run("UPDATE instances SET has_data = ?2 WHERE id = ?1", {id, has_data});
  if (change.sql.changes() != 0) change.touch_instance(id);
  change.commit("has_data");
}

void State::set_reported_server_id(const std::string& id, std::uint64_t server_id) {
  StateChange change(*db_);
  change.sql.run("UPDATE instances SET reported_server_id = ?2 WHERE id = ?1", {id, server_id});
  change.commit("reported_server_id");
}

std::vector<Member> State::members() {
  std::lock_guard lock(db_->mutex);
  return db_->sql.all("SELECT instance_id, source_id, read_only, account, joined_at FROM members ORDER BY place", {},
                      read_member);
}

std::vector<TopologyEntry> State::topology(const std::string& id) {
  std::lock_guard lock(db_->mutex);
  std::string root = id;
  db_->sql.each(
      "WITH RECURSIVE up(id) AS (SELECT ? UNION SELECT m.source_id FROM members m JOIN up ON m.instance_id = "
      "up.id) "
      "SELECT id FROM up WHERE id NOT IN (SELECT instance_id FROM members)",
      {id}, [&](const SqlRow& row) { root = row.text(0); });
  std::vector<TopologyEntry> out;
  // Depth first, each source's replicas in the order in which they were asked for.
  db_->sql.each(
      "WITH RECURSIVE tree(id, place, path) AS (SELECT ?1, 0, '' UNION ALL "
      "SELECT m.instance_id, m.place, tree.path || printf('/%018d', m.place) FROM members m JOIN tree ON "
      "m.source_id = tree.id) "
      "SELECT i.id, i.name, m.source_id, m.read_only FROM tree JOIN instances i ON i.id = tree.id "
      "LEFT JOIN members m ON m.instance_id = tree.id ORDER BY tree.path",
      {root}, [&](const SqlRow& row) {
        TopologyEntry entry{row.text(0), row.text(1), std::nullopt, row.boolean(3)};
        if (!row.null(2)) entry.source_id = row.text(2);
        out.push_back(std::move(entry));
      });
  return out;
}

Event read_event(const SqlRow& r) {
  return {r.integer(0), r.text(1), r.text(2), r.text(3), r.text(4), r.text(5), r.text(6)};
}

Event State::add_event(Event event) {
  StateChange change(*db_);
  event.at = change.now;
  change.event(event);
  event.seq = change.sql.last_id();
  change.commit("event");
  return event;
}

std::vector<Event> State::events_after(std::int64_t seq, int limit) {
  std::lock_guard lock(db_->mutex);
  return db_->sql.all(
      "SELECT seq, at, level, kind, instance_id, task_id, message FROM events WHERE seq > ? ORDER BY seq "
      "LIMIT ?",
      {seq, limit}, read_event);
}

std::vector<Event> State::last_events(int limit) {
  std::lock_guard lock(db_->mutex);
  return db_->sql.all(
      "SELECT seq, at, level, kind, instance_id, task_id, message FROM events ORDER BY seq DESC LIMIT ?", {limit},
      read_event);
}

void State::drop_events_before(WallTime time) {
  StateChange change(*db_);
  change.sql.run("DELETE FROM events WHERE at < ?", {format_utc(time)});
  change.commit("drop_events");
}

void State::drop_tasks_before(WallTime time) {
  StateChange change(*db_);
  const std::string before = format_utc(time);
  // The newest stays: replicas have their places by the numbers of their tasks, which must only go up.
  change.sql.run(
      "DELETE FROM tasks WHERE state <> 'running' AND finished_at < ? AND id NOT IN (SELECT task_id FROM cleanups) "
      "AND rowid < (SELECT max(rowid) FROM tasks)",
      {before});
  change.sql.run("DELETE FROM requests WHERE at < ? AND task_id NOT IN (SELECT id FROM tasks)", {before});
  change.commit("drop_tasks");
}

}  // namespace guestagent::controller

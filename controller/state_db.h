// The inside of State, shared by its .cc files: the connection, its lock, and one change at a time.
#pragma once

#include <mutex>

#include "controller/sqlite.h"
#include "controller/state.h"

namespace guestagent::controller {

struct State::Db {
  Db(const fs::path& file, Clock& c);
  std::optional<FileLock> owner;
  Sqlite sql;
  Clock& clock;
  Observer observer;
  std::mutex mutex;  // of sql
};

// One transaction. Undone unless commit() is called; the observer hears of it after that.
class StateChange {
 public:
  explicit StateChange(State::Db& db);
  ~StateChange();
  StateChange(const StateChange&) = delete;
  StateChange& operator=(const StateChange&) = delete;

  Sqlite& sql;
  std::string now;  // UTC

  void touch_instance(const std::string& id) { changes_.push_back({Change::Kind::instance, id, {}}); }
  void touch_task(const std::string& id) { changes_.push_back({Change::Kind::task, id, {}}); }
  void touch_topology() { changes_.push_back({Change::Kind::topology, {}, {}}); }
  void event(Event event);

  // As State::repeated; `note` keeps what the request with this mark has come to.
  std::optional<Repeated> repeated(const RequestMark& mark);
  void note(const RequestMark& mark, const Repeated& outcome);

  // What several changes have in common.
  Instance instance(const std::string& id);  // not_found
  Task task(const std::string& id);          // not_found
  Task running_task(const std::string& id);  // failed_precondition when it has ended
  Replica replica(const std::string& task_id, int number);
  void set_instance_state(const std::string& id, InstanceState state, const std::string& last_error = {});
  void set_step(const std::string& task_id, const std::string& step);
  void end_replica(const Replica& replica, ReplicaState state, const TaskError& error);
  // `number`: of the replica in its task.
  void join_topology(const Task& task, const Instance& replica, int number, const std::string& account);
  void leave_topology(const std::string& instance_id);
  void add_cleanup(const Task& task, const std::string& kind, const std::string& instance_id,
                   const std::string& subject, int number = 0);
  void end_cleanup(std::int64_t id);
  // Puts on the list of clean-ups every account that no replica uses, will use, or may turn out to use.
  // `for_task` waits for them.
  // Answers their names.
  std::vector<std::string> release_accounts(const std::string& for_task);
  std::uint64_t give_server_id(const Instance& instance);

  // `label` names the place to tests that crash here.
  void commit(const std::string& label);

 private:
  State::Db& db_;
  std::unique_lock<std::mutex> lock_;
  std::vector<Change> changes_;
  bool open_ = true;
};

// A new task, in its state "running"; `mark` is noted for it.
void insert_task(StateChange& change, const Task& task, const RequestMark& mark);
void insert_replica(StateChange& change, const std::string& task_id, int number, const Instance& host,
                    std::uint64_t server_id);
// The task of a request that was sent before.
std::optional<Task> known_task(StateChange& change, const RequestMark& mark);
// A host that the source of a new replica cannot be; failed_precondition. Its set gets another source just now:
// already_exists.
void check_source(StateChange& change, const Instance& source);
// The running task that works on this host, as a replica of it or its source; "" for none.
std::string task_on(StateChange& change, const std::string& instance_id);
// An account that replicas of `source_id` use, made by a task.
void record_account(StateChange& change, const Task& task, const std::string& source_id, const std::string& account);

std::vector<Instance> spare_hosts_for(Sqlite& sql, const std::string& source_id);

// One row each, with the columns as the k…Columns below list them.
Instance read_instance(const SqlRow& row);
Task read_task(const SqlRow& row);
Replica read_replica(const SqlRow& row);
Member read_member(const SqlRow& row);
Cleanup read_cleanup(const SqlRow& row);
Event read_event(const SqlRow& row);

#define GUESTAGENT_INSTANCE_COLUMNS                                                             \
  "id, name, address, flavor, availability_zone, volume_size, nics, origin, state, server_id, " \
  "reported_server_id, last_error, created_at, has_data"
#define GUESTAGENT_TASK_COLUMNS                                                                      \
  "id, kind, state, step, round, source_id, request, flavor, availability_zone, volume_size, nics, " \
  "read_only, cancel, error_code, error, error_hint, warning, "                                      \
  "snapshot_href, account, created_at, finished_at, overwrite, target_id"
#define GUESTAGENT_REPLICA_COLUMNS                                                                 \
  "task_id, number, instance_id, instance_name, state, server_id, error_code, error, error_hint, " \
  "started_at, finished_at"
#define GUESTAGENT_CLEANUP_COLUMNS "id, task_id, round, kind, instance_id, subject, number, tries, error"

}  // namespace guestagent::controller

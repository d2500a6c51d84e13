// The controller's memory, in SQLite: every change is one transaction, durable when the method returns, so
// that a controller that is killed at any instant goes on from here.
//
// All methods are thread-safe and throw Error (sqlite.h says which for the database itself).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/secret.h"
#include "controller/model.h"

namespace guestagent::controller {

// Marks a changing request, so that one that is sent again is not done again.
struct RequestMark {
  std::string key;     // the caller's; empty: none
  std::string digest;  // of method, path and body
};

// What a request with the same mark has come to.
struct Repeated {
  std::string task_id = {};      // of the task that it began or changed; empty where it was about a host
  std::string instance_id = {};  // of the host that it registered or forgot
  bool forgot = false;
};

struct NewInstance {
  std::string id;  // empty: a new UUID
  std::string name, address;
  HostTemplate host;  // what it has
  bool spare = true;
  bool has_data = false;
  std::uint64_t reported_server_id = 0;
};

struct NewReplicate {
  std::string source_id;
  int count = 1;
  HostTemplate host;
  bool read_only = true;
  bool provision = false;  // make new hosts instead of taking spare ones
  bool overwrite = false;  // hosts with data of their own may be among the picked
  std::string name;        // of hosts that are made; empty: from the source's name
  std::string request;     // JSON, for people
  RequestMark mark;
};

struct Change {
  enum class Kind { instance, task, topology, event } kind;
  std::string id;  // of the instance or task
  Event event;     // kind event
};

class State {
 public:
  // Called after each commit, on the thread that made it, without a lock held. Must not throw.
  using Observer = std::function<void(const std::vector<Change>&)>;
  // Chooses `count` of the spare hosts, best first; throws failed_precondition saying what none has.
  using Pick = std::function<std::vector<std::string>(const std::vector<Instance>& spare, const HostTemplate& wanted,
                                                      int count)>;

  // Opens or creates it. unavailable when another process has it; failed_precondition when a newer version
  // wrote it.
  State(const fs::path& file, Clock& clock);
  ~State();
  void observe(Observer observer);  // before threads

  // --- requests
  // nullopt: it was not sent before, or has no key. already_exists: the key was used for another request (named by what
  // it came to). Every change below that takes a mark looks again, in its own transaction, and then answers what the
  // first one came to.
  std::optional<Repeated> repeated(const RequestMark& mark);

  // --- hosts
  // already_exists for an id, a name or an agent address that is known. An id is taken as a name too, and the other way
  // round.
  Instance add_instance(const NewInstance& in, const RequestMark& mark = {});
  std::optional<Instance> find_instance(const std::string& id);
  // By id, or by a name that only one has. not_found; failed_precondition where several have the name.
  Instance instance(const std::string& id);
  std::vector<Instance> instances();
  // Free for a task to take as replicas of `source_id`, best first.
  std::vector<Instance> spare_hosts(const std::string& source_id);
  // failed_precondition: a source of others, in a running task, or (unless `force`) a replica or needed for a
  // clean-up. A replica goes on following: its account on the source is kept for good, and the event says so.
  void forget_instance(const std::string& id, bool force, const RequestMark& mark = {});
  void set_reported_server_id(const std::string& id, std::uint64_t server_id);
  void set_has_data(const std::string& id, bool has_data);

  // --- topology
  std::vector<Member> members();
  // The whole tree that the instance is in, source first; itself alone when it follows nobody and nobody
  // follows it.
  std::vector<TopologyEntry> topology(const std::string& id);

  // --- tasks
  // failed_precondition when the source or the spare hosts do not allow it; the hosts are taken by the same
  // transaction.
  Task start_replicate(const NewReplicate& in, const Pick& pick);
  Task start_detach(const std::string& instance_id, const std::string& request, const RequestMark& mark = {});
  // Another source for the set: a replica of it in its place (promote), or whichever has received the most (eject, of a
  // source that is gone). failed_precondition where a task works on one of them, or the source follows another itself.
  Task start_promote(const std::string& replica_id, const std::string& request, const RequestMark& mark = {});
  Task start_eject(const std::string& source_id, const std::string& request, const RequestMark& mark = {});
  // A replica of the set gets its data anew, from a snapshot of its source; its place stays. failed_precondition also
  // where others follow it: they may need what only it has kept.
  Task start_rebuild(const std::string& replica_id, const std::string& request, const RequestMark& mark = {});
  Task task(const std::string& id);       // not_found
  std::vector<Task> tasks(int limit);     // newest first
  std::map<RunState, int> task_counts();  // by state
  std::vector<Task> running_tasks();      // oldest first
  std::vector<Replica> replicas(const std::string& task_id);
  void request_cancel(const std::string& task_id,
                      const RequestMark& mark = {});  // failed_precondition when it has ended
  // Another round for the replicas that did not succeed, on the same hosts but for those in `replace`
  // (numbers) and those that are no longer free. failed_precondition when it still runs or nothing is left to
  // do.
  // `overwrite`: from now on hosts with data of their own may be taken.
  Task retry(const std::string& task_id, const std::set<int>& replace, const Pick& pick, bool overwrite = false,
             const RequestMark& mark = {});

  // --- what happened to a running task
  void snapshot_taken(const std::string& task_id, const Secret& metadata, const std::string& href,
                      const std::string& account);
  Secret snapshot_metadata(const std::string& task_id);  // kept while replicas are made; empty otherwise
  // No replica is made. `lost`: the source's agent fell silent, so the job's end is still to be learnt.
  void snapshot_failed(const std::string& task_id, const TaskError& error, bool lost, bool cancelled);
  void replica_state(const std::string& task_id, int number, ReplicaState state);
  void host_made(const std::string& task_id, int number, const std::string& address);
  void replica_serving(const std::string& task_id, int number);
  enum class HostAfter { put_back, lost, to_remove };
  void replica_failed(const std::string& task_id, int number, const TaskError& error, HostAfter host, bool cancelled);
  void replicas_ended(const std::string& task_id);
  void detached(const std::string& task_id);
  void detach_failed(const std::string& task_id, const TaskError& error, bool lost, bool cancelled);
  void target_chosen(const std::string& task_id, const std::string& instance_id);
  // No server is another's source. `restore`: the source is to take writes again; `opened`: the target takes writes
  // already, and so leaves the set.
  struct HandOverEnd {
    TaskError error;
    bool restore = false, opened = false, cancelled = false;
  };
  void hand_over_failed(const std::string& task_id, const HandOverEnd& end);
  // The target is the source now; `metadata` is what the others follow it by, kept as a snapshot's is.
  void handed_over(const std::string& task_id, const Secret& metadata, const std::string& account);
  void follower_ended(const std::string& task_id, int number, const TaskError& error, bool cancelled);
  // The topology as it came out, in one change.
  void set_reshaped(const std::string& task_id);
  // The task's end, told from its replicas.
  void finish(const std::string& task_id, const std::string& warning);

  // --- clean-ups
  std::vector<Cleanup> cleanups_of(
      const std::string& task_id);         // what the task itself removes: snapshot, account, host
  std::vector<Cleanup> orphan_cleanups();  // what nobody waits for: the rest, and all of tasks that have ended
  void cleanup_done(std::int64_t id);
  // `next_try`: the job of this try has ended, the next one needs another id.
  void cleanup_failed(std::int64_t id, const std::string& error, bool next_try);
  // How a lost agent's job ended after all; also ends the clean-up. `follows`: the replica serves (or the
  // detach was done).
  void lost_attach_resolved(const Cleanup& cleanup, bool follows);
  void lost_detach_resolved(const Cleanup& cleanup, bool detached);
  void lost_snapshot_resolved(const Cleanup& cleanup, const std::string& href,
                              const std::string& account);  // empty: none was made

  // --- events
  Event add_event(Event event);
  std::vector<Event> events_after(std::int64_t seq, int limit);  // oldest first
  std::vector<Event> last_events(int limit);                     // newest first
  void drop_events_before(WallTime time);
  // Tasks that ended before it, but for those of which something is still to be removed; and the marks of requests.
  void drop_tasks_before(WallTime time);

 private:
  friend class StateChange;
  struct Db;
  std::unique_ptr<Db> db_;
};

}  // namespace guestagent::controller

// What the controller remembers: hosts, who follows whom, tasks, and what is still to be removed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace guestagent::controller {

// What an enumeration's values are called by users, by agents and in the database: one table for each.
template <typename E>
struct Word {
  E value;
  std::string_view text;
};
template <typename E>
std::span<const Word<E>> words_of();

template <typename E>
std::string to_text(E value) {
  const auto words = words_of<E>();
  return std::string(std::find_if(words.begin(), words.end(), [&](const auto& w) { return w.value == value; })->text);
}
// nullopt for a word that it has not.
template <typename E>
std::optional<E> from_text(std::string_view text) {
  for (const Word<E>& word : words_of<E>()) {
    if (word.text == text) return word.value;
  }
  return std::nullopt;
}
// From the database, which this program alone writes: throws internal for a word that it does not know.
template <typename E>
E from_stored(const std::string& text) {
  if (const auto value = from_text<E>(text)) return *value;
  throw Error(Code::internal, "reading the controller's state: the word " + text + " is unknown",
              "another version of the controller, or somebody else, has written it");
}

enum class InstanceState {
  spare,     // free for a task to take
  building,  // a task makes a replica on it
  active,    // has data of its own, or follows
  lost,      // its agent fell silent while a task worked on it
  failed,    // a provisioned host that was removed again
};
template <>
std::span<const Word<InstanceState>> words_of();

// How the database of a host is, in its agent's words.
enum class Verdict {
  unknown,      // before the first look, or a word of an agent that this controller does not know
  unreachable,  // said by the agent of its server, and by the controller of an agent
  source,
  healthy,
  lagging,
  broken,
  diverged,
  standalone,
  restoring,
};
template <>
std::span<const Word<Verdict>> words_of();

enum class Role { source, replica, standalone };  // of a server
template <>
std::span<const Word<Role>> words_of();

// Of tasks, and of jobs on agents.
enum class RunState { running, succeeded, failed, cancelled };
template <>
std::span<const Word<RunState>> words_of();

enum class ReplicaState { pending, provisioning, ready, attaching, detaching, succeeded, failed, cancelled };
template <>
std::span<const Word<ReplicaState>> words_of();

// What a host has, or what a new replica's host must have; empty and 0: not stated, or anything.
struct HostTemplate {
  std::string flavor, availability_zone;
  std::uint64_t volume_size = 0;  // GiB
  std::string nics = "[]";        // JSON array
};

// A host with an agent.
struct Instance {
  std::string id, name;
  std::string address;  // of its agent; empty while the host is being made
  HostTemplate host;
  std::string origin = "registered";  // registered | provisioned
  InstanceState state = InstanceState::spare;
  std::uint64_t server_id = 0;           // given by the controller, once; 0: not yet
  std::uint64_t reported_server_id = 0;  // what its agent says
  std::string last_error;                // why the last task on it failed
  bool has_data = false;                 // what its agent said of user data when it was last asked
  std::string created_at;
};

// A replica's place: whom it follows. A source has no row of its own.
struct Member {
  std::string instance_id, source_id;
  bool read_only = true;
  std::string account;  // the replication account on the source that it uses
  std::string joined_at;
};

// One entry of the topology document.
struct TopologyEntry {
  std::string id, name;
  std::optional<std::string> source_id;
  bool read_only = false;
};

struct TaskError {
  std::string code;  // wire word of base/error.h; empty: no error
  std::string message, hint;
  bool empty() const { return code.empty(); }
};

// One replica of a task (or the one that a detach is about).
struct Replica {
  std::string task_id;
  int number = 0;  // from 1
  std::string instance_id, instance_name;
  ReplicaState state = ReplicaState::pending;
  std::uint64_t server_id = 0;
  TaskError error;
  std::string started_at, finished_at;

  bool ended() const {
    return state == ReplicaState::succeeded || state == ReplicaState::failed || state == ReplicaState::cancelled;
  }
};

struct Task {
  std::string id;
  std::string kind;  // replicate | detach | promote | eject | rebuild
  RunState state = RunState::running;
  // replicate, rebuild: snapshot, replicas, clean up, done. detach: detach, clean up, done. promote, eject: hand over,
  // follow, clean up, done.
  std::string step;
  int round = 1;          // a retry is another round, with job ids of its own
  std::string source_id;  // the instance that is copied, or followed by the one that is detached, or given up as source
  std::string target_id;  // promote, eject: the new source; empty until it is chosen
  std::string request;    // JSON of what was asked for
  HostTemplate host;      // replicate: of the new hosts
  bool read_only = true;
  bool cancel = false;  // asked to stop
  TaskError error;
  std::string warning;  // what could not be removed yet
  std::string snapshot_href, account;
  std::string created_at, finished_at;
  bool overwrite = false;  // hosts that have data of their own may be taken, and their data replaced

  bool ended() const { return state != RunState::running; }
  // The id of a job of this task on an agent: the same after a crash, another one in another round.
  std::string job_id(const std::string& step_name) const { return id + "-r" + std::to_string(round) + "-" + step_name; }
};

// Something that must go (or be found out) before nothing is left over. It is tried until it is done.
struct Cleanup {
  std::int64_t id = 0;
  std::string task_id;
  int round = 1;
  // writable, fence: a source that takes writes again after all; one that must not, now that another has taken over.
  // snapshot: delete it (subject: href); account: drop it on the source (subject: its name); host: the
  // provisioner's; snapshot_job, attach_job, detach_job: learn how a job of a lost agent ended (subject: job
  // id)
  std::string kind;
  std::string instance_id, subject;
  int number = 0;  // of the replica, where it is about one
  int tries = 0;
  std::string error;
};

struct Event {
  std::int64_t seq = 0;
  std::string at = {};
  std::string level = "info";  // info | warning | error
  std::string kind = {};       // registered, forgotten, task, replica, topology, status, cleanup
  std::string instance_id = {}, task_id = {};
  std::string message = {};
};

}  // namespace guestagent::controller

// What lets a set of replicas change its source: the small verbs that a controller composes. Implemented beside the
// Datastore, for the same server.
//
// The rules of strategies/datastore.h hold: what must be undone is in the job's journal first, and
// DatastoreUpkeep::recover() alone undoes it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/job_context.h"
#include "strategies/datastore.h"

namespace guestagent {

struct ReadOnlyRequest {
  bool read_only = true;
  std::optional<Millis> timeout;  // for writes that run; else 10 s
  bool force = false;             // what still writes after that is ended
};

struct ReadOnlyOutcome {
  bool read_only = true;
  // Accounts that may write all the same, since the server lets them pass: "'app'@'%'". Their sessions were ended, and
  // new ones of theirs are not held back. Empty: nobody but replication writes from here on.
  std::vector<std::string> may_still_write;
  std::uint64_t ended_sessions = 0;
};

// Where a server is, whatever its role.
struct ReplicationPlace {
  OwnJson executed;  // all that it has, applied or written by itself
  // How many transactions each is, to compare servers of one set by; nullopt where that cannot be told.
  std::optional<std::uint64_t> executed_transactions, received_transactions;
  std::optional<OwnJson> received, applied;  // of its source's history; only of a replica
};

class DatastoreRoles {
 public:
  virtual ~DatastoreRoles() = default;

  // Refuses writes (or takes them again), now and after a restart of the server. Nothing is committed by anybody but
  // replication once it has returned, except by who is named in the outcome. deadline_exceeded, with the sessions
  // named, where writes run longer than the limit and `force` is not set; then, as after any Error, recover() makes the
  // server as it was.
  virtual Plan plan_read_only(const ReadOnlyRequest& request) = 0;
  virtual ReadOnlyOutcome set_read_only(const ReadOnlyRequest& request, JobContext& job) = 0;

  // Only looks. unavailable where the server does not answer.
  virtual ReplicationPlace place() = 0;

  // Returns once `position`, of a server of the same set, is applied here. deadline_exceeded past `timeout`;
  // failed_precondition as soon as it is seen that it cannot be reached; cancelled.
  virtual void wait_for(const OwnJson& position, Millis timeout, JobContext& job) = 0;

  // An account for new replicas of this server, and the lease, without a copy: what a snapshot's metadata says beside
  // its dataset. `id` names it, as a snapshot's id does.
  virtual Plan plan_open_source() = 0;
  virtual SourceFacts open_source(const std::string& id, JobContext& job) = 0;

  // Nothing is left that only a source has: the agent's accounts and their leases. Answers the accounts' names.
  // failed_precondition while a replica is connected by one of them, unless `force`.
  virtual Plan plan_demote(bool force) = 0;
  virtual std::vector<std::string> demote_source(bool force, JobContext& job) = 0;
};

}  // namespace guestagent

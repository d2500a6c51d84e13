// Ends replication without losing a transaction that was received.
#pragma once

#include <functional>

#include "base/clock.h"
#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// What else makes a server a replica or a standalone one, beside replication itself: its option files, its
// event scheduler. Both can be called twice. `client` is connected to the server.
struct RoleChange {
  std::function<void(ServerClient& client)> become_standalone;
  std::function<void(ServerClient& client)> stay_replica;
  // What came from the source and is nobody's business here any more; `user` is the account that was followed with, ""
  // where that is not known. Answers the accounts that it dropped. Throws nothing: replication has ended.
  std::function<std::vector<std::string>(ServerClient& client, const std::string& user)> forget_source = {};
};

// Datastore::plan_stop, of a server with that status.
Plan plan_stop(const ReplicationStatus& status, const DetachRequest& request);

// Datastore::stop_replicating. failed_precondition: not a replica, or its SQL thread is stopped (unless
// force); deadline_exceeded: not drained in time; cancelled. After any Error recover_stop_replicating() is to be
// called.
DetachOutcome stop_replicating(const MysqlSettings& settings, const fs::path& state_dir, const DetachRequest& request,
                               const RoleChange& role, JobContext& job, Clock& clock);

// By the journal of a detach that has failed or died: finishes what was past its point of no return, else lets the
// replica follow as it did before, with its settings as they were. Answers in words.
std::string recover_stop_replicating(const MysqlSettings& settings, const fs::path& state_dir, const RoleChange& role,
                                     JobContext& job);

}  // namespace guestagent::mysql

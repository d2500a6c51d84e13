// What makes a server a source, a replica or a standalone one beside replication itself: its option file and its event
// scheduler.
#pragma once

#include "base/clock.h"
#include "base/job_context.h"
#include "config/settings.h"
#include "strategies/mysql/follow/replica_stop.h"
#include "strategies/mysql/host/server_control.h"

namespace guestagent::mysql {

// For stop_replicating: the managed option file becomes that of a standalone server, or the replica's again. Journaled.
RoleChange role_change(const MysqlSettings& settings, JobContext& job);

// After replication has ended: the event scheduler is as it was before this server became a replica.
void restore_scheduler(const MysqlSettings& settings);

// Restarts the server with its binary log on. After an Error recover_turn_on_binlog() is to be called. REQUIRES:
// mysql.allow_restart.
void turn_on_binlog(const MysqlSettings& settings, ServerControl& control, JobContext& job);
// After a failure or a crash in the middle of it: the server runs with its options as they were. Answers in words, ""
// for nothing.
std::string recover_turn_on_binlog(const MysqlSettings& settings, ServerControl& control, JobContext& job);

}  // namespace guestagent::mysql

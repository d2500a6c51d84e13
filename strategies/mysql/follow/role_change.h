// What makes a server a source, a replica or a standalone one beside replication itself: its option file and its event
// scheduler.
#pragma once

#include "base/clock.h"
#include "base/job_context.h"
#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/follow/replica_stop.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/host/server_control.h"

namespace guestagent::mysql {

// The managed option file as it is; nullopt: there is none.
std::optional<std::string> managed_content(const fs::path& file);
// Throws the first failed check of check_option_files.
void require_managed_file_read(const MysqlSettings& settings);

// The managed options of a server in each role, made of what it is now. A server that somebody set up by hand has no
// options of ours to start from.
ManagedOptions standalone_options(const MysqlSettings& settings, ServerClient& client);
ManagedOptions options_as_replica(const MysqlSettings& settings, const AttachRequest& request, std::uint32_t server_id,
                                  const ServerIdentity& identity, const Dialect& dialect);

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

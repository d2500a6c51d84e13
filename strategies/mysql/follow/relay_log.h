// What a replica has received and not applied. Once its source is gone that exists nowhere else: whoever ends
// replication, changes its source or lets it go on asks here first.
#pragma once

#include "base/clock.h"
#include "base/job_context.h"
#include "config/settings.h"
#include "strategies/mysql/follow/replica_record.h"
#include "strategies/mysql/server/gtid.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// Applied or received whole, and received whole but not applied. Empty without GTIDs.
GtidSet received_or_applied(GtidKind kind, const ReplicaStatus& channel);
GtidSet unapplied(GtidKind kind, const ReplicaStatus& channel);

// Waits until everything that was received whole is applied. failed_precondition: the applying thread does not run;
// deadline_exceeded after `timeout`; cancelled. REQUIRES: a replica of one source, its receiving thread is stopped.
void drain(const MysqlSettings& settings, Millis timeout, JobContext& job, Clock& clock, ServerClient& client);

// Whether that source answers now and has all of `wanted`. Never throws.
bool source_has(const ReplicaRecord& source, const MysqlSettings& settings, const GtidSet& wanted);

// Starts the threads that ran before. MariaDB throws its relay log away when, following by GTID, it is started with
// both threads stopped: where something in there is unapplied and `source` (which may be unknown) does not have it now,
// nothing is started, and a warning says so.
void resume_following(ServerClient& client, const MysqlSettings& settings, const std::optional<ReplicaRecord>& source,
                      bool receiving, bool applying, JobContext& job);

}  // namespace guestagent::mysql

// Makes this server follow a source, and says when it has caught up.
#pragma once

#include "base/clock.h"
#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/server/gtid.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// Datastore::start_replicating. REQUIRES: the server runs on the snapshot's data, no replication is set up,
// its server_id is its own. On Error the server may be left with replication set up but it is not running as
// a good replica: the caller undoes the installation.
AttachOutcome start_replicating(const MysqlSettings& settings, const fs::path& state_dir, const AttachRequest& request,
                                JobContext& job, Clock& clock);

// A set of GTIDs that the snapshot's data has at least: that of its position, or of the lease where only the restored
// data tells the position. nullopt when its source has no GTIDs.
std::optional<std::string> told_gtid(const SnapshotMetadata& snapshot);

// Whether a snapshot is followed by GTID here: it has a set, the settings want it, and the server knows that
// kind.
bool follow_by_gtid(const MysqlSettings& settings, const SnapshotMetadata& snapshot, const Dialect& dialect);

// A preflight check: the source answers the snapshot's account from this host, is not this server itself, its
// server_id is not `server_id`, and it still has the binary logs from the lease position on. Appends to
// `out`; changes nothing.
void check_source_reachable(const MysqlSettings& settings, const SnapshotMetadata& snapshot, std::uint32_t server_id,
                            std::vector<Check>& out);

}  // namespace guestagent::mysql

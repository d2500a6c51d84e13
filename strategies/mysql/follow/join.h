// A server with data that follows nobody, as a source that another has taken over from: it becomes a replica from where
// it is, when all that it has is in the new source's history.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"
#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/host/server_control.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// Why it cannot follow the snapshot's source from where it is; nullopt when it can: its agent knows it as one of that
// set, and the source has all that it has. Names and counts the transactions
// that only this server has. Asks both servers, for a few seconds at most; changes nothing. REQUIRES: no replica.
std::optional<std::string> why_not_join(const MysqlSettings& settings, const fs::path& state_dir,
                                        const AttachRequest& request, ServerClient& client, Clock& clock);

// Datastore::start_replicating of a request with data_is_here, on a server that is no replica. Writes are refused
// first, then it is looked again. A server that would not log what it applies is restarted with that on: no other could
// follow it else. Journaled: on Error recover_join() makes it as it was.
AttachOutcome join(const MysqlSettings& settings, const fs::path& state_dir, ServerControl& control,
                   const AttachRequest& request, JobContext& job, Clock& clock);

// After a failure or a crash of join(). Answers in words, "" when there was nothing to undo. Idempotent.
std::string recover_join(const MysqlSettings& settings, const fs::path& state_dir, ServerControl& control,
                         JobContext& job);

}  // namespace guestagent::mysql

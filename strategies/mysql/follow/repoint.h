// A replica that goes on by another source, or by another account of the same one, from where it is: no new copy.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"
#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// Why this replica cannot simply be pointed at the snapshot's source; nullopt when it can: it follows by GTID, has what
// the snapshot has, and has neither applied nor received what the source has not. `client` is its own server's. Asks
// both servers, for a few seconds at most; changes nothing. REQUIRES: it is a replica.
std::optional<std::string> why_not_repoint(const MysqlSettings& settings, const fs::path& state_dir,
                                           const AttachRequest& request, ServerClient& client, Clock& clock);

// Datastore::start_replicating of a request with data_is_here. What was received from the source so far is applied
// first, within the request's catch_up_timeout (else mysql.drain_timeout), and held against the new source: nothing
// that was received is thrown away. Journaled: on Error recover_repoint() lets it follow as before.
AttachOutcome repoint(const MysqlSettings& settings, const fs::path& state_dir, const AttachRequest& request,
                      JobContext& job, Clock& clock);

// After a failure or a crash of repoint(). Answers in words, "" when there was nothing to undo. Idempotent. Where the
// new source has sent something that is not applied here and that no source which answers has, it is applied first;
// where that cannot be, the replica goes on following the new source.
std::string recover_repoint(const MysqlSettings& settings, const fs::path& state_dir, JobContext& job, Clock& clock);

}  // namespace guestagent::mysql

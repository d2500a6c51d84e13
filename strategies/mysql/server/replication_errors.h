// What a replication thread's error number means for whoever called.
#pragma once

#include <optional>
#include <string>

#include "base/error.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// The Error for a thread of `status` that stopped, or that cannot connect; nullopt when neither thread has an
// error. A thread that is connecting and may yet succeed (the source restarts) counts only when its error can
// not go away by waiting.
std::optional<Error> replication_error(const ReplicaStatus& status, bool include_passing);

// "io", its error number and message in one line without passwords: "1236: Could not find first log file
// name…".
std::string thread_error(unsigned number, const std::string& message);

// True when the two histories are known not to be one: a duplicate key, a missing row, a GTID that the source
// does not know.
bool means_diverged(const ReplicaStatus& status);

}  // namespace guestagent::mysql

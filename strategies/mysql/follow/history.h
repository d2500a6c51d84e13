// Whether what one server has is a part of another's history. A replica may follow a source only where it is: else the
// two have parted, and replication would go on as if nothing were.
#pragma once

#include <stop_token>
#include <string>

#include "base/clock.h"
#include "strategies/mysql/server/gtid.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// What of `here` cannot be shown to be in the history of `source`.
//
// MySQL's sets are compared as they are. MariaDB's positions are not: 0-1-505 is no part of a history that stands at
// 0-2-510, though the number is lower. There the last transaction of each domain counts: the source has it when its
// binary log has that of the same server or a later one of it, or when its own replication has passed it.
GtidSet not_in_history(GtidKind kind, const GtidSet& here, ServerClient& source);

// The same, for a source that may itself be on its way to there: asked again until `patience` is over.
GtidSet not_in_history_soon(GtidKind kind, const GtidSet& here, ServerClient& source, Millis patience, Clock& clock,
                            const std::stop_token& stop);

// What a server has written itself.
GtidSet own_transactions(ServerClient& client);

// For people: "3 transactions: 0-1-505".
std::string count_and_name(const GtidSet& transactions);

}  // namespace guestagent::mysql

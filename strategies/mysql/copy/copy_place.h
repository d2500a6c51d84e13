// Whether a copy's position is one of this server's history.
#pragma once

#include <vector>

#include "strategies/mysql/server/dialect.h"
#include "strategies/mysql/server/position.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// Throws Error(failed_precondition) for a position that is in none of `logs` (the server's binary logs, read after the
// copy), or that lies before `lease`, where the server was before the copy began. A position that is not known yet
// (`restored`) passes.
void require_place(const Position& position, const Position& lease, const std::vector<BinlogFile>& logs, GtidKind kind);

}  // namespace guestagent::mysql

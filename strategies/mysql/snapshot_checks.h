// What must be true of a server before it is copied and followed.
#pragma once

#include <vector>

#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/server_client.h"

namespace guestagent::mysql {

// Appends each check with its result; asks the server and looks at its files, changes nothing. A server that
// does not answer is a failed check, after which there is no other.
void check_source(const MysqlSettings& settings, ServerClient& client, std::vector<Check>& out);

}  // namespace guestagent::mysql

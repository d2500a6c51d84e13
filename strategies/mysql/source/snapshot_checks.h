// What must be true of a server before it is copied and followed.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// Whether the redo log outlasts a copy. `data` is what is copied, `written` what the server adds to its redo
// log, bytes per second. A tool that follows the log loses it when the store holds up the copy for longer
// than the server takes to write it over.
Check check_redo(std::uint64_t redo_bytes, std::uint64_t data, std::uint64_t written);

// Tables whose rows a backup tool does not copy, or that lie outside of the server, by name: MEMORY tables are refused
// while `has_rows`, since the first change of such a row stops the replica. Appends nothing where all is well.
void check_engines(const std::vector<TableName>& tables, const std::function<bool(const TableName&)>& has_rows,
                   std::vector<Check>& out);

// Appends each check with its result; asks the server and looks at its files, changes nothing. A server that
// does not answer is a failed check, after which there is no other.
void check_source(const MysqlSettings& settings, ServerClient& client, std::vector<Check>& out);
// The same without what only a copy needs, for a server that replicas with its data are to follow.
void check_followed(const MysqlSettings& settings, ServerClient& client, std::vector<Check>& out);

}  // namespace guestagent::mysql

// The copy by the server's own Clone plugin: what must be true for it, and how what it made is received.
//
// The server copies itself into a directory on its own host, which is archived as a tar stream and removed. Such a copy
// needs no preparing, and its position shows only in the server that runs on it ("known": "restored" in the metadata).
#pragma once

#include <string>
#include <vector>

#include "base/job_context.h"
#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/server/server_client.h"
#include "stream/byte_stream.h"

namespace guestagent::mysql {

inline constexpr std::string_view kClone = "clone";      // its name as a tool
inline constexpr std::string_view kCloneFormat = "tar";  // of its stream

// Appends what a source must fulfil to be cloned; asks the server and looks at its file systems, changes nothing.
void check_clone(const MysqlSettings& settings, ServerClient& client, const ServerIdentity& server,
                 std::vector<Check>& out);

// The directory that a clone is made in: mysql.staging_dir, else beside the data.
fs::path clone_parent(const MysqlSettings& settings);

// What a job that died left, by its journal: the server's clone that still runs is ended, its directory and, where the
// job loaded it, the plugin are removed. Answers in words, "" for nothing. Idempotent.
std::string recover_clone(const MysqlSettings& settings, JobContext& job);

// From the archive to a data directory in `dir`, which is empty. What makes a server that server (auto.cnf) is left
// out. Throws Error(data_loss) for a copy that is not whole.
void unpack_clone(ByteSource& stream, const fs::path& dir, JobContext& job);

}  // namespace guestagent::mysql

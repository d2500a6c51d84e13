// From the bytes of a copy to a prepared data directory, beside the running server.
#pragma once

#include <string>

#include "base/file.h"
#include "base/job_context.h"
#include "config/settings.h"
#include "stream/piece_source.h"

namespace guestagent::mysql {

// Datastore::receive. `dir` is made when it is not there, and must be empty and no link, or the agent's own with a part
// of this stream (copy/placed_record.h). On any Error it is empty again, as far as it is still in its place; but where
// another try can mend it (unavailable, deadline_exceeded, permission_denied), or the process died before the copy was
// whole, what was fetched stays for that. The tool that prepares runs as the server's user, and nothing that the copy
// brings is obeyed: its options are written anew, and a name that no data directory has is refused. Throws
// failed_precondition for a format or a tool that is not had here, or for a directory that was exchanged, data_loss for
// a copy that is not whole or brings what no copy has, resource_exhausted for a full disk, cancelled.
std::uint64_t receive_copy(PieceSource& stream, const fs::path& dir, const MysqlSettings& settings, JobContext& job);

// Records that `dir`, which receive_copy has filled, has a whole copy of that stream, and closes it to all but the
// agent: another receive_copy of the same stream into it only holds its files against the record, and answers the
// stream's bytes; where one is not as it was, it says so in a warning and begins anew.
void keep_ready(const fs::path& dir, const PieceSource::Kind& kind, JobContext& job);

// Whether `dir` has something of that stream that receive_copy would use, and the removal of what says so.
bool is_staged_for(const fs::path& dir, const PieceSource::Kind& kind);
bool is_staged(const fs::path& dir);
void forget_staged(const fs::path& dir);

// The full path of a tool: in mysql.tools_dir when that is set, else where programs are. Throws failed_precondition
// naming it.
std::string tool_path(const MysqlSettings& settings, const std::string& name);

// Throws failed_precondition for one that receive_copy does not know.
void require_known_format(const std::string& format);

// How much memory prepare gets: the setting, else what `redo_bytes` of log want and the host can give.
std::uint64_t prepare_memory(const MysqlSettings& settings, std::uint64_t redo_bytes);

}  // namespace guestagent::mysql

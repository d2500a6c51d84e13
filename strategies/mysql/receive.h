// From the bytes of a copy to a prepared data directory, beside the running server.
#pragma once

#include <string>

#include "base/file.h"
#include "base/job_context.h"
#include "config/settings.h"
#include "stream/byte_stream.h"

namespace guestagent::mysql {

// Datastore::receive. `dir` is made when it is not there and must be empty; on any Error it is empty again. Throws failed_precondition
// for a format or a tool that is not had here, data_loss for a copy that is not whole, resource_exhausted for a full disk, cancelled.
void receive_copy(ByteSource& stream, const std::string& format, const fs::path& dir, const MysqlSettings& settings, JobContext& job);

// The full path of a tool: in mysql.tools_dir when that is set, else where programs are. Throws failed_precondition naming it.
std::string tool_path(const MysqlSettings& settings, const std::string& name);

// The tools that receive needs for `format`, by name, as candidates in order of choice: one of each list that is not empty must be there.
struct ReceiveTools {
  std::vector<std::string> extract, prepare;
};
ReceiveTools receive_tools(const std::string& format, const MysqlSettings& settings);

// How much memory prepare gets: the setting, else what `redo_bytes` of log want and the host can give.
std::uint64_t prepare_memory(const MysqlSettings& settings, std::uint64_t redo_bytes);

// Owner, mode and security context as the server's own files have: what it could not read would fail it after the switch.
void give_to_server(const fs::path& dir, const MysqlSettings& settings);

}  // namespace guestagent::mysql

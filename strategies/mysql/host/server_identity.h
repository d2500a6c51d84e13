// The server_id of this host's server: unique in its topology, and never changed.
#pragma once

#include <cstdint>
#include <optional>

#include "base/file.h"

namespace guestagent::mysql {

// The one that is asked for; else the one that keep_server_id kept; else one derived from the host's machine id and the
// data directory, so that it is the same whenever it is derived. Never 0. A kept or derived one that equals `source_id`
// gives way to another; an asked one that does is failed_precondition.
std::uint32_t choose_server_id(const std::optional<std::uint32_t>& asked, std::uint32_t source_id,
                               const fs::path& data_dir, const fs::path& state_dir);

// Keeps it for the next attach. Durable.
void keep_server_id(std::uint32_t id, const fs::path& state_dir);

}  // namespace guestagent::mysql

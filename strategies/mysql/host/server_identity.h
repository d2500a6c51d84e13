// The server_id of this host's server: unique in its topology, and never changed.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "strategies/own_json.h"

namespace guestagent::mysql {

// The one that is asked for; else the one that keep_server_id kept; else one derived from the host's machine id and the
// data directory, so that it is the same whenever it is derived. Never 0. A kept or derived one that equals `source_id`
// gives way to another; an asked one that does is failed_precondition.
std::uint32_t choose_server_id(const std::optional<std::uint32_t>& asked, std::uint32_t source_id,
                               const fs::path& data_dir, const fs::path& state_dir);

// The member of an attach's slave_config that asks for one: its name, and what it asks for, as
// Datastore::read_attach_members answers it. Throws the reader's error.
std::vector<std::string_view> attach_members();
OwnJson read_attach_members(const JsonReader& slave_config);
// What that says; nullopt: nothing is asked for.
std::optional<std::uint32_t> asked_server_id(const OwnJson& own);

// `{"server_id": id}`, as answers and the status have it.
OwnJson own_server_id(std::uint32_t id);

// Keeps it for the next attach. Durable.
void keep_server_id(std::uint32_t id, const fs::path& state_dir);

}  // namespace guestagent::mysql

// What the settings of this family mean for the host, for the agent, which does not know their keys.
#pragma once

#include <string>
#include <vector>

#include "config/settings.h"
#include "strategies/datastore.h"

namespace guestagent::mysql {

HostNeeds host_needs(const MysqlSettings& settings);

// The managed file works only where the server reads it: after all else, from a directory that its own option file
// includes. Reads those files; what is wrong is a failed check.
Check check_managed_file(const MysqlSettings& settings);

// How a person looks into data that was extracted and prepared in `dir`.
std::string how_to_look(const MysqlSettings& settings, const fs::path& dir);

}  // namespace guestagent::mysql

// Copies that lie beside the data: parts of a stream that an interrupted attach left, for the next one to go on with,
// and whole ones that were staged.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "config/settings.h"
#include "strategies/datastore.h"

namespace guestagent::mysql {

// Where copies are received: mysql.staging_dir, else the agent's directory beside the data.
fs::path staging_parent(const MysqlSettings& settings);

// Looks into the directories alone. A place that cannot be read has none.
std::vector<StagedCopy> staged_copies(const MysqlSettings& settings);

// REQUIRES: no job uses it.
void remove_staged(const StagedCopy& copy);

// Those that nothing was added to for `keep`.
std::vector<StagedCopy> old_staged(const MysqlSettings& settings, Millis keep, Clock& clock);

}  // namespace guestagent::mysql

// What can be known before the first byte of a snapshot is fetched: whether this host can become a replica from it.
// Touches nothing.
#pragma once

#include <string>

#include "base/clock.h"
#include "config/settings.h"
#include "strategies/datastore.h"

namespace guestagent::mysql {

// Datastore::plan_attach. Never throws for what is wrong with host, snapshot or source: that is a failed check.
Plan plan_attach_checks(const MysqlSettings& settings, const fs::path& state_dir, const AttachRequest& request,
                        const std::string& server_json, Clock& clock);

}  // namespace guestagent::mysql

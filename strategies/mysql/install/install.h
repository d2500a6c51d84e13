// The switch of a running server to restored data, as one thing that is accepted or, by the journal, undone.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/job_context.h"
#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/host/server_control.h"
#include "strategies/mysql/source/source_server.h"

namespace guestagent::mysql {

// What every step of it needs; all outlive it.
struct InstallParts {
  const MysqlSettings& settings;
  const fs::path state_dir;
  ServerControl& control;
  Clock& clock;
};

// Datastore::install. `server_id` is what the new replica gets. Returns with the server running on the new data, its
// options checked. After an Error, and where nobody accepts: settle_installation(parts, false, job).
std::unique_ptr<Installation> install_data(const InstallParts& parts, const AttachRequest& request,
                                           std::uint32_t server_id, const fs::path& staging, JobContext& job);

// What the journal of an attach says is still to do: with `accepted` the old data is removed (or kept as was asked),
// else it is put back and served. Answers in words what was done, "" for nothing. Idempotent.
std::string settle_installation(const InstallParts& parts, bool accepted, JobContext& job);

}  // namespace guestagent::mysql

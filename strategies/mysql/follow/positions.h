// Where a server is in the history of its set, and waiting until it is somewhere.
#pragma once

#include "base/clock.h"
#include "base/job_context.h"
#include "strategies/mysql/server/server_client.h"
#include "strategies/roles.h"

namespace guestagent::mysql {

// DatastoreRoles::place.
ReplicationPlace place_of(ServerClient& client);

// DatastoreRoles::wait_for.
void wait_for_position(ServerClient& client, const Position& at, Millis timeout, JobContext& job, Clock& clock);

}  // namespace guestagent::mysql

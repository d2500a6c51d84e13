// A server that refuses writes, or takes them again: now, and after its next start.
#pragma once

#include <string>

#include "base/clock.h"
#include "config/settings.h"
#include "strategies/mysql/server/journal_steps.h"
#include "strategies/mysql/server/server_client.h"
#include "strategies/roles.h"

namespace guestagent::mysql {

// DatastoreRoles::set_read_only.
ReadOnlyOutcome change_read_only(const MysqlSettings& settings, const ReadOnlyRequest& request, JobContext& job,
                                 Clock& clock);
// By the journal of one that has failed or died: writes are taken as before. Answers in words, "" for nothing.
std::string recover_read_only(const MysqlSettings& settings, JobContext& job);

// How writes are taken now, and made so again. `scheduler`: whether that is changed too.
step::WritesBefore writes_now(const MysqlSettings& settings, ServerClient& client, bool scheduler);
void put_writes_back(const MysqlSettings& settings, ServerClient& client, const step::WritesBefore& before);

// Waits for the transactions that write now, then refuses writes. deadline_exceeded after `timeout`, with the sessions
// named; with `force` they are ended then. Answers how many were.
std::uint64_t refuse_writes(ServerClient& client, Millis timeout, bool force, JobContext& job, Clock& clock);

}  // namespace guestagent::mysql

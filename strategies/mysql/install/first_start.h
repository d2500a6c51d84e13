// The private first start of a server on restored data.
//
// A physical copy brings the source's accounts, its replication settings and its events. Before anybody else may reach
// the server, it runs once as the agent's child, without network, replication, events or binary log, on a socket in a
// directory that only its own user can enter; the system tables of an older source are brought up to this server,
// inherited replication is cleared, and the agent's account works again.
#pragma once

#include <optional>

#include "base/clock.h"
#include "base/job_context.h"
#include "config/settings.h"
#include "strategies/mysql/server/dialect.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// REQUIRES: no server runs on the data directory. `dialect` is that of the server that will run. The directory that it
// needs is recorded ("first-start") before it is made; `remove_first_start` removes what a crash left of it. The server
// has ended in order when this returns, and has ended when it throws. `upgrade`: the program for older system tables
// (find_upgrade_tool), run before anything else. Answers by what the data can be known again once the server has
// started normally; `replication_user` is the snapshot's.
DataMark first_start(const MysqlSettings& settings, const Dialect& dialect, const std::optional<fs::path>& upgrade,
                     const std::string& replication_user, Clock& clock, JobContext& job);
void remove_first_start(Journal& journal);

}  // namespace guestagent::mysql

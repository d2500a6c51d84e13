// What must be right on this host for its server to become a source or a replica, whatever is asked of it one day.
// Touches nothing.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/settings.h"
#include "strategies/datastore.h"

namespace guestagent::mysql {

// The server's user, its data directory, its option files, how it is stopped and started, the tools of a replica, and
// the rights of the agent's account, in the order in which they are to be put right. Never throws for what is wrong:
// that is a failed check.
std::vector<Check> check_host(const MysqlSettings& settings);

// That the programs which stop and start the server are there, and the agent may become the server's user; answers how
// it is done. Throws Error(failed_precondition, permission_denied).
std::string check_control(const MysqlSettings& settings);

// Those of `wanted` ("SELECT, RELOAD, …", a dialect's agent_privileges), and GRANT OPTION, that no line of SHOW GRANTS
// gives on *.*.
std::vector<std::string> missing_privileges(std::string_view wanted, const std::vector<std::string>& grants);

}  // namespace guestagent::mysql

// The option file that a backup tool is given: the server's own options, then how to connect, so that no
// password is in argv.
#pragma once

#include <string>

#include "config/settings.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// `value` as an option file needs it: quoted, with its escapes. Throws Error(invalid_argument) for a line
// break or a zero byte.
std::string option_file_value(std::string_view value);

// Text of the file. `socket` is where the tool is to find the server, whatever host, port or socket the server's own
// files name for clients. `group` is the tool's own ("mariadb-backup", "xtrabackup").
std::string tool_options(const MysqlSettings& settings, const ConnectTarget& target, const fs::path& socket,
                         const ServerIdentity& server, std::string_view group);

}  // namespace guestagent::mysql

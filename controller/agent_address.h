// Which agents the controller speaks to: those that can prove that they are agents, since they are told passwords.
#pragma once

#include <string_view>

#include "config/controller_settings.h"
#include "net/http_address.h"

namespace guestagent::controller {

// The address, where the settings let the controller speak to an agent there:
//   https   where agents.ca_file says whose certificates agents have;
//   unix:   a socket below one of agents.socket_dirs, links followed (whose process serves it is looked at when it is
//   connected to); http    on loopback, where agents.allow_plain_http says so.
// invalid_argument that names the key, else. Nothing is connected to.
HttpAddress agent_address(std::string_view text, const AgentAccessSettings& settings);

// Whose processes may serve agents' sockets: root, the own user, agents.socket_users. invalid_argument for a name that
// nobody has.
std::vector<uid_t> agent_users(const AgentAccessSettings& settings);

}  // namespace guestagent::controller

// The sockets that the server listens on.
#pragma once

#include <string>

#include "base/unique_fd.h"
#include "config/settings.h"
#include "net/unix_listener.h"

namespace guestagent {

UnixAccess unix_access(const AgentSettings& settings);

// "0.0.0.0:8443", "[::1]:8443"
UniqueFd listen_tcp(const std::string& address);

}  // namespace guestagent

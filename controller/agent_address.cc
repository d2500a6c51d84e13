#include "controller/agent_address.h"

#include <unistd.h>

#include <algorithm>

#include "base/text.h"
#include "net/unix_listener.h"

namespace guestagent::controller {
namespace {

bool is_below(const fs::path& path, const fs::path& dir) {
  const auto [end, ignored] = std::mismatch(dir.begin(), dir.end(), path.begin(), path.end());
  return end == dir.end() && path != dir;
}

// As it is without links; what is not there is taken as it is written.
fs::path resolved(const fs::path& path) {
  std::error_code failed;
  const fs::path out = fs::weakly_canonical(path, failed);
  return failed ? path.lexically_normal() : out;
}

bool may_stand_at(const fs::path& socket, const std::vector<std::string>& dirs) {
  if (socket.lexically_normal() != socket) return false;
  return std::any_of(dirs.begin(), dirs.end(), [&](const std::string& dir) {
    return is_below(socket, dir) && is_below(resolved(socket), resolved(dir));
  });
}

}  // namespace

HttpAddress agent_address(std::string_view text, const AgentAccessSettings& settings) {
  HttpAddress out = HttpAddress::parse(text);
  const auto refuse = [&](const std::string& why, const std::string& hint) {
    throw Error(Code::invalid_argument, "the agent's address " + printable(text) + ": " + why, hint);
  };
  switch (out.kind) {
    case HttpAddress::Kind::unix_socket:
      if (!may_stand_at(out.path, settings.socket_dirs)) {
        refuse("it is not below a directory of agents' sockets",
               "agents.socket_dirs of the controller's configuration names them: " +
                   join({settings.socket_dirs.begin(), settings.socket_dirs.end()}));
      }
      break;
    case HttpAddress::Kind::tls:
      if (settings.ca_file.empty()) {
        refuse("the controller does not know whose certificates agents have",
               "set agents.ca_file in the controller's configuration to the CA that signs those of the agents");
      }
      break;
    case HttpAddress::Kind::tcp:
      if (!settings.allow_plain_http) {
        refuse("by plain http nobody can prove to be an agent",
               "use the agent's Unix socket or https; agents.allow_plain_http is for tests");
      }
      break;
  }
  return out;
}

std::vector<uid_t> agent_users(const AgentAccessSettings& settings) {
  std::vector<uid_t> out = {0, ::geteuid()};
  for (const std::string& name : settings.socket_users) out.push_back(user_id(name, "controller.agents.socket_users"));
  return out;
}

}  // namespace guestagent::controller

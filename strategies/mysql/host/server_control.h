// How the database server of this host is stopped and started: by its systemd unit, by configured commands, or as a
// process of the agent's own making. The three share what "runs" means: a process holds the locks of the data files, or
// the socket greets.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "config/settings.h"

namespace guestagent::mysql {

// Not thread-safe. Everything throws Error.
class ServerControl {
 public:
  virtual ~ServerControl() = default;
  // Returns when the server greets on its socket; at once when it did already. deadline_exceeded after `timeout`,
  // unavailable (with the server's last words where they can be had) when it ended instead. The server outlives the
  // agent.
  virtual void start(Millis timeout, std::stop_token stop = {}) = 0;
  // Asks it to end in order and returns when it is gone and nobody holds the data files; at once when that is so
  // already. deadline_exceeded after `timeout`: it is never killed.
  virtual void stop(Millis timeout) = 0;
  // A server that is still starting, or ending, runs.
  virtual bool running() = 0;
};

// The one that mysql.server.control names. What it must remember is kept in `state_dir`. `clock` outlives it.
std::unique_ptr<ServerControl> make_server_control(const MysqlSettings& settings, const fs::path& state_dir,
                                                   Clock& clock);

// The process that holds the locks which a server takes on the data files in `data_dir`: no name or pid file is asked.
// nullopt: nobody does. 0: somebody whose pid cannot be seen from here (another pid namespace).
std::optional<pid_t> data_holder(const fs::path& data_dir);

// Whether a server answers a connection on `socket` with its greeting, within `patience`. Needs no account.
bool greets(const fs::path& socket, Millis patience = Millis{1000});

// uid and gid of mysql.os_user when the agent must change to it (it is root, and that user is another); nullopt when it
// runs as that user already. Throws Error: failed_precondition for a user that does not exist, permission_denied when
// the agent may not become it.
std::optional<std::pair<uid_t, gid_t>> server_user(const MysqlSettings& settings);

// The server's argv: mysql.server.command, reading `defaults_file` (empty: the one that the command names, else
// mysql.defaults_file), with `options` where they win over it. As root by the wish of mysql.os_user, with --user=root,
// which the server insists on.
std::vector<std::string> server_argv(const MysqlSettings& settings, const std::vector<std::string>& options,
                                     const fs::path& defaults_file = {});

// The environment for the server: the agent's own without what is meant for the agent (notify socket, watchdog, …).
std::vector<std::string> server_environment();

}  // namespace guestagent::mysql

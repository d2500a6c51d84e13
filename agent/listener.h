// The sockets that the server listens on, and who may connect.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "config/settings.h"

namespace guestagent {

class UnixListener {
 public:
  // Takes the socket over from systemd when it has one (LISTEN_FDS); else listens at settings.socket,
  // replacing the file that a dead agent left. already_exists when a live one listens there. Whom the lists name may
  // open the file: by its group, or by an access control list.
  explicit UnixListener(const AgentSettings& settings);
  ~UnixListener();  // removes the socket's file if it made it
  UnixListener(const UnixListener&) = delete;
  UnixListener& operator=(const UnixListener&) = delete;

  int fd() const { return fd_.get(); }
  // By the kernel's word on who connected: root, the agent's own user, agent.allow_users and members of
  // agent.allow_groups.
  bool allows(int connection) const;
  // Of those: root or the agent's own user.
  static bool is_own(int connection);

 private:
  void listen_at(const AgentSettings& settings);
  UniqueFd fd_;
  fs::path made_;
  std::vector<uid_t> users_;
  std::vector<gid_t> groups_;
};

// "0.0.0.0:8443", "[::1]:8443"
UniqueFd listen_tcp(const std::string& address);

}  // namespace guestagent

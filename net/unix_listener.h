// A Unix socket to listen on, and who may connect: the one check of local callers, for both roles.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/file.h"
#include "base/unique_fd.h"

namespace guestagent {

struct UnixAccess {
  std::string section;  // of the configuration, for errors: "agent"
  fs::path socket;
  unsigned mode = 0660;
  std::vector<std::string> allow_users, allow_groups;  // beside root and the own user
};

class UnixListener {
 public:
  // Takes the socket over from systemd when it has one (LISTEN_FDS); else listens at access.socket,
  // replacing the file that a dead process left. already_exists when a live one listens there. Whom the lists name may
  // open the file: by its group, or by an access control list.
  explicit UnixListener(const UnixAccess& access);
  ~UnixListener();  // removes the socket's file if it made it
  UnixListener(const UnixListener&) = delete;
  UnixListener& operator=(const UnixListener&) = delete;

  int fd() const { return fd_.get(); }
  // By the kernel's word on who connected: root, the own user, allow_users and members of allow_groups.
  bool allows(int connection) const;
  // Of those: root or this process's own user.
  static bool is_own(int connection);

 private:
  void listen_at(const UnixAccess& access);
  UniqueFd fd_;
  fs::path made_;
  bool given_ = true;  // to the first group
  std::vector<uid_t> users_;
  std::vector<gid_t> groups_;
};

// The user of the process at the other end of a connected Unix socket; that of the one that listened, where this end
// connected. Throws Error.
uid_t peer_user(int connection);
// Of a user's name. Throws invalid_argument, saying which `key` of the configuration has it.
uid_t user_id(const std::string& name, const std::string& key);

}  // namespace guestagent

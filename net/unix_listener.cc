#include "net/unix_listener.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "base/log.h"

namespace guestagent {
namespace {

constexpr int kBacklog = 128;

// `get` is getpwnam_r or getgrnam_r.
template <typename Entry, typename Get>
Entry look_up(Get get, const std::string& name, const std::string& key) {
  Entry entry{};
  Entry* found = nullptr;
  std::vector<char> space(1024);
  int failed;
  while ((failed = get(name.c_str(), &entry, space.data(), space.size(), &found)) == ERANGE)
    space.resize(space.size() * 2);
  if (!found) {
    throw Error(Code::invalid_argument,
                key + ": " + name + ": " + (failed ? std::strerror(failed) : "there is no such name"),
                "make it, or take it out of the configuration");
  }
  return entry;
}

sockaddr_un address_of(const fs::path& path, const std::string& section) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof address.sun_path) {
    throw Error(Code::invalid_argument, section + ".socket: " + path.string() + ": longer than " +
                                            std::to_string(sizeof address.sun_path - 1) + " bytes");
  }
  std::memcpy(address.sun_path, path.c_str(), path.native().size() + 1);
  return address;
}

const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

// What a dead agent left is removed; what is alive, or is no socket, is not.
void make_way(const fs::path& path, const sockaddr_un& address, const std::string& section) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return;
  if (!S_ISSOCK(info.st_mode)) {
    throw Error(Code::already_exists, "listen at " + path.string() + ": a file that is no socket stands there",
                "remove it, or set " + section + ".socket");
  }
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) throw system_error("make a socket", errno);
  if (::connect(probe.get(), generic(address), sizeof address) == 0 || errno == EAGAIN) {
    throw Error(Code::already_exists, "listen at " + path.string() + ": another guestagent serves it",
                "stop that one first, or set " + section + ".socket");
  }
  if (errno != ECONNREFUSED) throw system_error("look who listens at " + path.string(), errno);
  ::unlink(path.c_str());
}

void append(std::string& acl, unsigned tag, unsigned rights, unsigned id = static_cast<unsigned>(ACL_UNDEFINED_ID)) {
  const posix_acl_xattr_entry entry{static_cast<__le16>(tag), static_cast<__le16>(rights), id};
  acl.append(reinterpret_cast<const char*>(&entry), sizeof entry);
}

// The mode lets one group in; whom else the lists name needs an access control list. Its mask is the group's
// part of the mode, so that a tighter mode stays one. Entries stand by tag and id: the kernel refuses any
// other order.
void let_in(const fs::path& path, std::vector<uid_t> users, std::vector<gid_t> groups, const std::string& section) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) throw system_error("look at " + path.string(), errno);
  const unsigned group_rights = info.st_mode >> 3 & 7;
  for (auto* ids : {&users, &groups}) {
    std::sort(ids->begin(), ids->end());
    ids->erase(std::unique(ids->begin(), ids->end()), ids->end());
  }
  const posix_acl_xattr_header header{POSIX_ACL_XATTR_VERSION};
  std::string acl(reinterpret_cast<const char*>(&header), sizeof header);
  append(acl, ACL_USER_OBJ, info.st_mode >> 6 & 7);
  for (const uid_t user : users) append(acl, ACL_USER, ACL_READ | ACL_WRITE, user);
  append(acl, ACL_GROUP_OBJ, group_rights);
  for (const gid_t group : groups) append(acl, ACL_GROUP, ACL_READ | ACL_WRITE, group);
  append(acl, ACL_MASK, group_rights);
  append(acl, ACL_OTHER, info.st_mode & 7);
  if (::setxattr(path.c_str(), "system.posix_acl_access", acl.data(), acl.size(), 0) != 0) {
    log_warning("users and groups of allow_users and allow_groups may find the socket closed",
                {{"socket", path.string()},
                 {"error", std::strerror(errno)},
                 {"hint", "set " + section + ".socket_mode: 0666; who connects is still checked"}});
  }
}

}  // namespace

UnixListener::UnixListener(const UnixAccess& access) {
  for (const std::string& name : access.allow_users)
    users_.push_back(look_up<passwd>(::getpwnam_r, name, access.section + ".allow_users").pw_uid);
  for (const std::string& name : access.allow_groups)
    groups_.push_back(look_up<group>(::getgrnam_r, name, access.section + ".allow_groups").gr_gid);
  const std::vector<uid_t> listed = users_;
  users_.push_back(0);
  users_.push_back(::geteuid());

  if (::sd_listen_fds(1) > 0 && ::sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_STREAM, 1, nullptr, 0) > 0) {
    fd_.reset(SD_LISTEN_FDS_START);
    sockaddr_un address{};
    socklen_t size = sizeof address;
    if (::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
      throw system_error("ask for the name of systemd's socket", errno);
    if (address.sun_path[0] != '\0' && !(listed.empty() && groups_.empty()))
      let_in(address.sun_path, listed, groups_, access.section);
    return;
  }
  listen_at(access);
  if (!listed.empty() || groups_.size() > 1 || !given_) let_in(made_, listed, groups_, access.section);
}

void UnixListener::listen_at(const UnixAccess& access) {
  const fs::path& path = access.socket;
  const sockaddr_un address = address_of(path, access.section);
  const std::string doing = "listen at " + path.string();
  std::error_code failed;
  fs::create_directories(path.parent_path(), failed);
  if (failed) throw system_error(doing, failed.value());
  make_way(path, address, access.section);
  fd_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd_ || ::bind(fd_.get(), generic(address), sizeof address) != 0) throw system_error(doing, errno);
  made_ = path;
  // Nobody can connect before listen().
  if (::chmod(path.c_str(), access.mode) != 0) throw system_error(doing, errno);
  // Who is not root may only give it to a group of his own; the access control list does it then.
  given_ = groups_.empty() || ::chown(path.c_str(), static_cast<uid_t>(-1), groups_.front()) == 0;
  if (::listen(fd_.get(), kBacklog) != 0) throw system_error(doing, errno);
}

UnixListener::~UnixListener() {
  if (!made_.empty()) ::unlink(made_.c_str());
}

bool UnixListener::allows(int connection) const {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  if (std::find(users_.begin(), users_.end(), peer.uid) != users_.end()) return true;
  if (groups_.empty()) return false;
  std::vector<gid_t> of_peer(256);
  size = static_cast<socklen_t>(of_peer.size() * sizeof(gid_t));
  if (::getsockopt(connection, SOL_SOCKET, SO_PEERGROUPS, of_peer.data(), &size) != 0) size = 0;
  of_peer.resize(size / sizeof(gid_t));
  of_peer.push_back(peer.gid);
  return std::any_of(of_peer.begin(), of_peer.end(),
                     [&](gid_t gid) { return std::find(groups_.begin(), groups_.end(), gid) != groups_.end(); });
}

uid_t peer_user(int connection) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
    throw system_error("ask who is at the other end of a socket", errno);
  return peer.uid;
}

uid_t user_id(const std::string& name, const std::string& key) {
  return look_up<passwd>(::getpwnam_r, name, key).pw_uid;
}

bool UnixListener::is_own(int connection) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         (peer.uid == 0 || peer.uid == ::geteuid());
}

}  // namespace guestagent

#include "base/held_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <deque>
#include <memory>
#include <vector>

#include "base/dir_walk.h"
#include "base/error.h"

namespace guestagent {
namespace {

constexpr int kMaxLinks = 40;  // the kernel's own limit
constexpr mode_t kOthersWrite = 0022;

bool is_root() {
  return ::geteuid() == 0;
}

// Whether none but root can put a link such as `link` into the directory `parent`.
bool only_roots(const struct stat& parent, const struct stat& link) {
  if (parent.st_uid != 0) return false;
  return (parent.st_mode & kOthersWrite) == 0 || ((parent.st_mode & S_ISVTX) != 0 && link.st_uid == 0);
}

struct stat status_of(int fd, const fs::path& shown) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) throw system_error("looking at " + shown.string(), errno);
  return info;
}

// The directory itself, walked to from the root of the file system by one part after the other.
class Walk {
 public:
  Walk(const fs::path& dir, std::string doing) : doing_(std::move(doing)) {
    push(fs::absolute(dir));
    restart();
  }

  UniqueFd end(int flags) {
    while (!parts_.empty()) step();
    UniqueFd out(::openat(fd_.get(), ".", flags | O_DIRECTORY | O_CLOEXEC));
    if (!out) throw system_error(doing_, errno);
    return out;
  }

 private:
  void push(const fs::path& path) {
    std::vector<std::string> found;
    for (const fs::path& part : path.relative_path()) {
      if (!part.empty() && part != ".") found.push_back(part.string());
    }
    parts_.insert(parts_.begin(), found.begin(), found.end());
  }

  void restart() {
    fd_.reset(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!fd_) throw system_error(doing_, errno);
  }

  void step() {
    const std::string part = parts_.front();
    parts_.pop_front();
    UniqueFd next(::openat(fd_.get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!next) throw system_error(doing_, errno);
    const struct stat info = status_of(next.get(), part);
    if (S_ISLNK(info.st_mode)) return follow(next.get(), part, info);
    if (!S_ISDIR(info.st_mode)) throw system_error(doing_, ENOTDIR);
    fd_ = std::move(next);
  }

  void follow(int link, const std::string& name, const struct stat& info) {
    if (!only_roots(status_of(fd_.get(), name), info)) {
      throw Error(Code::failed_precondition, doing_ + ": " + name + ": it is a link that others than root can exchange",
                  "give the directory's own path, or have that link in a directory where only root may write");
    }
    if (++links_ > kMaxLinks) throw system_error(doing_, ELOOP);
    char target[PATH_MAX];
    const ssize_t size = ::readlinkat(link, "", target, sizeof target);
    if (size <= 0) throw system_error(doing_, size < 0 ? errno : ENOENT);
    const fs::path to = std::string(target, static_cast<std::size_t>(size));
    push(to);
    if (to.is_absolute()) restart();
  }

  const std::string doing_;
  std::deque<std::string> parts_;
  UniqueFd fd_;
  int links_ = 0;
};

fs::path clean_path(const fs::path& path) {
  fs::path clean = fs::absolute(path).lexically_normal();
  return clean.has_filename() ? clean : clean.parent_path();
}

void check_own(const struct stat& info, const fs::path& dir) {
  if (!S_ISDIR(info.st_mode) || !is_root()) return;
  if (info.st_uid == 0 && (info.st_mode & kOthersWrite) == 0) return;
  throw Error(Code::failed_precondition,
              "using " + dir.string() + ": it belongs to uid " + std::to_string(info.st_uid) +
                  ", or others may write there: only root's own directory will do",
              "see who made it, and remove it");
}

}  // namespace

UniqueFd open_directory(const fs::path& dir, int flags) {
  const std::string doing = "opening the directory " + dir.string();
  const fs::path path = dir.empty() ? fs::path(".") : dir;
  if (is_root()) return Walk(path, doing).end(flags);
  UniqueFd out(::open(path.c_str(), flags | O_DIRECTORY | O_CLOEXEC));
  if (!out) throw system_error(doing, errno);
  return out;
}

UniqueFd open_below(int dir, const fs::path& relative, int flags, unsigned mode) {
  UniqueFd at;
  const fs::path parents = relative.parent_path();
  for (const fs::path& part : parents) {
    if (part == "..") {
      errno = EINVAL;
      return {};
    }
    at.reset(::openat(at ? at.get() : dir, part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!at) return {};
  }
  return UniqueFd(::openat(at ? at.get() : dir, relative.filename().c_str(), flags | O_NOFOLLOW | O_CLOEXEC, mode));
}

void require_own_dir(const fs::path& dir) {
  struct stat info {};
  if (::lstat(dir.c_str(), &info) != 0) {
    if (errno == ENOENT) return;
    throw system_error("looking at " + dir.string(), errno);
  }
  if (!S_ISDIR(info.st_mode)) {
    throw Error(Code::failed_precondition, "using " + dir.string() + ": it is no directory",
                "see who made it, and remove it");
  }
  check_own(info, dir);
}

void make_own_dir(const fs::path& dir, unsigned mode) {
  const fs::path clean = clean_path(dir);
  require_own_dir(clean);
  make_dir(clean, mode);
  // Who made it meanwhile is seen by this second look, at what was opened.
  const HeldDir held(clean);
  check_own(status_of(held.fd(), clean), clean);
}

void require_safe_place(const fs::path& path) {
  if (!is_root()) return;
  fs::path above = clean_path(path).parent_path();
  std::error_code failed;
  while (!fs::exists(above, failed) && above != above.root_path()) above = above.parent_path();
  const fs::path real = fs::canonical(above, failed);
  if (failed) throw system_error("looking at " + above.string(), failed.value());
  for (above = real;; above = above.parent_path()) {
    struct stat info {};
    if (::lstat(above.c_str(), &info) != 0) throw system_error("looking at " + above.string(), errno);
    if (info.st_uid != 0 || ((info.st_mode & kOthersWrite) != 0 && (info.st_mode & S_ISVTX) == 0)) {
      throw Error(Code::failed_precondition,
                  "writing to " + path.string() + " as root: " + above.string() + " belongs to uid " +
                      std::to_string(info.st_uid) + ", or others may write there: they could lead root elsewhere",
                  "name a place in directories of root's own, and move the result yourself");
    }
    if (above == above.root_path()) return;
  }
}

void give_dir(const fs::path& dir, uid_t user, gid_t group) {
  const HeldDir held(dir);
  if (::fchown(held.fd(), user, group) != 0) throw system_error("setting the owner of " + dir.string(), errno);
}

void remove_dir_if_empty(const fs::path& dir) {
  const fs::path clean = clean_path(dir);
  try {
    const UniqueFd parent = open_directory(clean.parent_path(), O_PATH);
    if (::unlinkat(parent.get(), clean.filename().c_str(), AT_REMOVEDIR) == 0) return;
  } catch (const Error& e) {
    if (e.code() == Code::not_found) return;
    throw;
  }
  if (errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST && errno != EBUSY)
    throw system_error("removing " + dir.string(), errno);
}

HeldDir::HeldDir(const fs::path& dir) : path_(clean_path(dir)) {
  const UniqueFd parent = open_directory(path_.parent_path(), O_PATH);
  const fs::path name = path_ == path_.root_path() ? fs::path(".") : path_.filename();
  fd_.reset(::openat(parent.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd_) throw system_error("opening the directory " + path_.string(), errno);
  info_ = status_of(fd_.get(), path_);
}

bool HeldDir::stands() const {
  struct stat now {};
  return ::lstat(path_.c_str(), &now) == 0 && now.st_dev == info_.st_dev && now.st_ino == info_.st_ino;
}

void HeldDir::require_stands() const {
  if (stands()) return;
  throw Error(Code::failed_precondition,
              "using " + path_.string() + ": somebody put something else in its place meanwhile",
              "find out who did; what is there now was not touched");
}

bool HeldDir::empty() const {
  return !first_name(fd_.get(), path_);
}

void HeldDir::clear() const {
  remove_below(fd_.get(), path_);
}

void HeldDir::sync() const {
  sync_below(fd_.get(), path_);
}

void HeldDir::give(uid_t user, gid_t group, mode_t mode) const {
  if (::fchown(fd_.get(), user, group) != 0) throw system_error("setting the owner of " + path_.string(), errno);
  if (::fchmod(fd_.get(), mode) != 0) throw system_error("setting the mode of " + path_.string(), errno);
}

std::string HeldDir::read(const fs::path& relative, std::size_t max_bytes) const {
  UniqueFd file = open_below(fd_.get(), relative, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (!file) throw system_error("reading " + (path_ / relative).string(), errno);
  return read_open_file(file, path_ / relative, max_bytes);
}

std::string HeldDir::read_head(const fs::path& relative, std::size_t bytes) const {
  const UniqueFd file = open_below(fd_.get(), relative, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  std::string out(bytes, '\0');
  const ssize_t n = file ? ::pread(file.get(), out.data(), out.size(), 0) : -1;
  if (n < 0) throw system_error("reading " + (path_ / relative).string(), errno);
  out.resize(static_cast<std::size_t>(n));
  return out;
}

bool HeldDir::has(const fs::path& relative) const {
  if (open_below(fd_.get(), relative, O_PATH)) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  throw system_error("looking at " + (path_ / relative).string(), errno);
}

void HeldDir::write(const std::string& name, std::string_view content, unsigned mode,
                    const std::optional<std::pair<uid_t, gid_t>>& owner) const {
  write_file_in(fd_.get(), path_, name, content, mode, owner);
}

void HeldDir::walk(const std::function<void(const Entry&)>& visit) const {
  walk_below(fd_.get(), {}, path_,
             [&](int parent, const char* name, const fs::path& relative, const struct stat& info) {
               visit(Entry{relative, info, parent, name});
             });
}

}  // namespace guestagent

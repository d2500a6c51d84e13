#include "storage/local/local_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <mntent.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <shared_mutex>
#include <system_error>

#include "base/file.h"
#include "base/secret.h"
#include "base/unique_fd.h"
#include "net/url.h"

namespace guestagent {
namespace {

// No character of an object's name: what has it was never an object.
constexpr char kTempMark = '~';

bool may_pass(int err) {
  switch (err) {
    case EINTR:
    case EAGAIN:
    case EBUSY:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ESTALE:
    case ETIMEDOUT:
      return true;
    default:
      return false;
  }
}

[[noreturn]] void fail(const std::string& what, int err) {
  const std::string why = std::generic_category().message(err);
  if (err == EISDIR || err == ENOTDIR || err == ELOOP || err == ENOTEMPTY || err == EEXIST) {
    throw StoreError(Code::failed_precondition, what + ": " + why,
                     "something that is no object of the store is in its place", false, std::nullopt, why);
  }
  const Error e = system_error(what, err);
  throw StoreError(e.code(), e.what(), e.hint(), may_pass(err), std::nullopt, why);
}

// Makes what was done to a directory's entries durable.
void sync_entries(int dir, const std::string& what) {
  if (const int err = fsync_dir_fd(dir); err != 0) fail(what, err);
}

[[noreturn]] void fail_cancelled(const std::string& what) {
  throw StoreError(Code::cancelled, what + ": cancelled on request", {}, false);
}

struct DirCloser {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using Dir = std::unique_ptr<DIR, DirCloser>;

Dir read_dir(int fd) {
  UniqueFd copy(::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  Dir dir(copy ? ::fdopendir(copy.get()) : nullptr);
  if (dir) copy.release();
  return dir;
}

bool is_dots(std::string_view name) {
  return name == "." || name == "..";
}

// A leftover of a dead process: nobody holds its lock.
bool remove_stale(int dir, const char* name) {
  UniqueFd fd(::openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return errno == ENOENT;
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return false;
  return ::unlinkat(dir, name, 0) == 0 || errno == ENOENT;
}

// True when nothing is left in the directory; stops at the first thing that has to stay.
bool clear_leftovers(int fd) {
  const Dir dir = read_dir(fd);
  if (!dir) return false;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (is_dots(entry->d_name)) continue;
    if (std::string_view(entry->d_name).find(kTempMark) == std::string_view::npos || !remove_stale(fd, entry->d_name))
      return false;
  }
  return true;
}

// A file that is being written; gone unless it was renamed to its goal.
class TempFile {
 public:
  TempFile(int dir, const std::string& leaf) : dir_(dir), name_(leaf + kTempMark + random_hex(4)) {
    fd_.reset(::openat(dir_, name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (fd_) ::flock(fd_.get(), LOCK_EX | LOCK_NB);
  }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;
  ~TempFile() {
    if (fd_) ::unlinkat(dir_, name_.c_str(), 0);
  }
  int fd() const { return fd_.get(); }
  bool rename_to(const std::string& leaf) {
    if (::renameat(dir_, name_.c_str(), dir_, leaf.c_str()) != 0) return false;
    fd_.reset();
    return true;
  }
  // Gives it that name too, unless something has it: then errno is EEXIST. For one of all that try.
  bool link_to(const std::string& leaf) {
    if (::linkat(dir_, name_.c_str(), dir_, leaf.c_str(), 0) == 0) return true;
    // Some file systems have no links, and some of those no such rename: there an empty file reserves the name.
    if (errno == EEXIST || !has_no_links(errno)) return false;
    if (::renameat2(dir_, name_.c_str(), dir_, leaf.c_str(), RENAME_NOREPLACE) == 0) {
      fd_.reset();
      return true;
    }
    if (errno != EINVAL && !has_no_links(errno)) return false;
    const UniqueFd reserved(::openat(dir_, leaf.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    return reserved && rename_to(leaf);
  }

 private:
  static bool has_no_links(int err) {
    return err == EPERM || err == EOPNOTSUPP || err == ENOSYS || err == EMLINK || err == EXDEV;
  }

  int dir_;
  std::string name_;
  UniqueFd fd_;
};

class LocalStore : public ObjectStore {
 public:
  LocalStore(fs::path root, fs::path fstab) : root_(std::move(root)), fstab_(std::move(fstab)) {}

  void put(std::string_view name, const Buffer& body, std::stop_token stop) override {
    check_object_name(name);
    store(name, body, false, stop);
  }

  NewObject put_new(std::string_view name, const Buffer& body, std::stop_token stop) override {
    check_object_name(name);
    return {store(name, body, true, stop), {}};
  }

  bool promises_new() const override { return true; }

  Buffer get(std::string_view name, std::uint64_t max_size, std::stop_token stop) override {
    check_object_name(name);
    const std::string what = "get " + shown(name);
    const UniqueFd file = open_object(name, what);
    struct stat st {};
    if (!file) fail(what, ENOENT);
    if (::fstat(file.get(), &st) != 0) fail(what, errno);
    const auto size = static_cast<std::uint64_t>(st.st_size);
    if (size > max_size) {
      throw StoreError(
          Code::resource_exhausted,
          what + ": has " + std::to_string(size) + " bytes, more than the " + std::to_string(max_size) + " expected",
          {}, false, std::nullopt, StoreError::kTooLarge);
    }
    Buffer body;
    while (body.size() < size) {
      if (stop.stop_requested()) fail_cancelled(what);
      auto room = body.room();
      room = room.first(std::min<std::uint64_t>(room.size(), size - body.size()));
      const ssize_t n = ::read(file.get(), room.data(), room.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(what, errno);
      if (n == 0)
        throw StoreError(Code::data_loss, what + ": was cut while it was read", {}, false, std::nullopt, "short body");
      body.commit(static_cast<std::size_t>(n));
    }
    return body;
  }

  std::optional<ObjectInfo> stat(std::string_view name, std::stop_token stop) override {
    check_object_name(name);
    const std::string what = "stat " + shown(name);
    if (stop.stop_requested()) fail_cancelled(what);
    const UniqueFd file = open_object(name, what);
    if (!file) return std::nullopt;
    struct stat st {};
    if (::fstat(file.get(), &st) != 0) fail(what, errno);
    return info(std::string(name), st);
  }

  void list(std::string_view prefix, const std::function<void(const ObjectInfo&)>& each,
            std::stop_token stop) override {
    const UniqueFd root(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root) {
      const int err = errno;
      check_root_place("list " + root_.string());
      if (err == ENOENT) return;
      fail("list " + root_.string(), err);
    }
    walk(root.get(), {}, prefix, each, stop);
  }

  bool remove(std::string_view name, std::stop_token stop) override {
    check_object_name(name);
    const std::string what = "remove " + shown(name);
    if (stop.stop_requested()) fail_cancelled(what);
    auto dirs = open_dirs(name, false, what);
    bool removed = false;
    if (dirs.complete) {
      removed = ::unlinkat(dirs.fds.back().get(), dirs.names.back().c_str(), 0) == 0;
      if (!removed && errno != ENOENT && errno != EISDIR) fail(what, errno);
      if (removed) sync_entries(dirs.fds.back().get(), what);
    }
    const std::lock_guard pruning(pruning_);
    while (dirs.fds.size() > 1 && clear_leftovers(dirs.fds.back().get())) {
      const std::string& own = dirs.names[dirs.fds.size() - 2];
      dirs.fds.pop_back();
      if (::unlinkat(dirs.fds.back().get(), own.c_str(), AT_REMOVEDIR) != 0) break;
    }
    return removed;
  }

  bool join(std::string_view name, const std::vector<ObjectInfo>&, std::stop_token) override {
    check_object_name(name);
    return false;
  }

  std::string href(std::string_view name) const override {
    check_object_name(name);
    return "file://" + percent_encode(shown(name), true);
  }

  std::optional<std::string> name_of(std::string_view href) const override {
    for (const std::string_view scheme : {"file://localhost/", "file:///"}) {
      if (!href.starts_with(scheme)) continue;
      const auto path = percent_decode(href.substr(scheme.size() - 1));
      if (!path || path->find('\0') != std::string::npos) return std::nullopt;
      const fs::path plain(*path);
      // "a/../b" is "b" only where a is no symbolic link; nobody honest writes it.
      if (std::ranges::find(plain, "..") != plain.end()) return std::nullopt;
      const std::string normal = plain.lexically_normal();
      const std::string root = root_.string() + "/";
      if (!normal.starts_with(root)) return std::nullopt;
      std::string name = normal.substr(root.size());
      return valid_object_name(name) ? std::optional(std::move(name)) : std::nullopt;
    }
    return std::nullopt;
  }

 private:
  std::string shown(std::string_view name) const { return (root_ / name).string(); }

  static ObjectInfo info(std::string name, const struct stat& st) {
    const auto since = Seconds(st.st_mtim.tv_sec) +
                       std::chrono::duration_cast<WallTime::duration>(std::chrono::nanoseconds(st.st_mtim.tv_nsec));
    return {std::move(name), static_cast<std::uint64_t>(st.st_size), WallTime(since)};
  }

  // Throws where the root is missing, or no directory, for another reason than that nothing was put yet.
  void check_root_place(const std::string& what) const {
    const auto refuse = [&](const fs::path& at, const std::string& why, const std::string& hint) {
      throw StoreError(Code::failed_precondition, what + ": " + at.string() + " " + why, hint, false, std::nullopt,
                       "no place");
    };
    fs::path at;
    for (const fs::path& part : root_) {
      at /= part;
      struct stat st {};
      if (::lstat(at.c_str(), &st) != 0) {
        if (errno == ENOENT) break;
        fail(what + ": " + at.string(), errno);
      }
      const bool link = S_ISLNK(st.st_mode);
      if (link && ::stat(at.c_str(), &st) != 0) {
        if (errno == ELOOP) refuse(at, "is a loop of links", "make it a directory");
        if (errno != ENOENT) fail(what + ": " + at.string(), errno);
        refuse(at, "is a link to a place that is not there: is it mounted?",
               "mount it, or set storage.local.path to a directory");
      }
      if (!S_ISDIR(st.st_mode)) refuse(at, "is not a directory", "set storage.local.path to a directory");
    }
    if (const auto missing = unmounted_above(); !missing.empty())
      refuse(missing, "is not mounted, but " + fstab_.string() + " has it",
             "mount it: what is stored now would be hidden then");
  }

  // The place of a file system that should be mounted at the root or above it, and is not.
  fs::path unmounted_above() const {
    std::error_code unknown;
    const fs::path real = fs::weakly_canonical(root_, unknown);
    const auto places = [](const fs::path& table) {
      std::vector<fs::path> out;
      if (FILE* file = ::setmntent(table.c_str(), "re")) {
        mntent entry{};
        std::array<char, 8192> space{};
        while (::getmntent_r(file, &entry, space.data(), static_cast<int>(space.size())) != nullptr)
          out.emplace_back(entry.mnt_dir);
        ::endmntent(file);
      }
      return out;
    };
    const std::vector<fs::path> mounted = places("/proc/self/mounts");
    if (unknown || mounted.empty()) return {};
    for (const fs::path& place : places(fstab_)) {
      if (!place.is_absolute() || place == "/" || std::ranges::find(mounted, place) != mounted.end()) continue;
      const fs::path plain = fs::weakly_canonical(place, unknown);
      if (!unknown && std::mismatch(plain.begin(), plain.end(), real.begin(), real.end()).first == plain.end())
        return place;
    }
    return {};
  }

  void make_root(const fs::path& dir, const std::string& what) const {
    const auto made = [&] {
      if (::mkdir(dir.c_str(), 0700) != 0) return false;
      const UniqueFd parent(::open(dir.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (!parent) fail(what, errno);
      sync_entries(parent.get(), what);
      return true;
    };
    if (made()) return;
    if (errno == ENOENT && dir != dir.parent_path()) {
      make_root(dir.parent_path(), what);
      if (made()) return;
    }
    if (errno != EEXIST) fail(what, errno);
    // It may be a link that leads nowhere.
    struct stat st {};
    if (::stat(dir.c_str(), &st) != 0) fail(what + ": " + dir.string(), errno == ENOENT ? ELOOP : errno);
    if (!S_ISDIR(st.st_mode)) fail(what + ": " + dir.string(), ENOTDIR);
  }

  // False when `only_new` and something else is there.
  bool store(std::string_view name, const Buffer& body, bool only_new, const std::stop_token& stop) const {
    // A remove() of another process may take the empty directory away under our feet: then it is made again.
    for (int tries_left = 8;; --tries_left) {
      try {
        return put_once(name, body, only_new, stop);
      } catch (const StoreError& e) {
        if (e.code() != Code::not_found || tries_left == 0) throw;
      }
    }
  }

  struct Dirs {
    std::vector<UniqueFd> fds;       // the root, then each component but the last, as far as they are there
    std::vector<std::string> names;  // all components
    bool complete = false;           // fds.back() is where the object would be
  };

  Dirs open_dirs(std::string_view name, bool create, const std::string& what) const {
    Dirs dirs;
    for (std::size_t at = 0; at <= name.size();) {
      const auto slash = std::min(name.find('/', at), name.size());
      dirs.names.emplace_back(name.substr(at, slash - at));
      at = slash + 1;
    }
    constexpr int kDir = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    UniqueFd next(::open(root_.c_str(), kDir));
    if (!next) {
      const int err = errno;
      check_root_place(what);
      errno = err;
      if (err == ENOENT && create) {
        make_root(root_, what);
        next.reset(::open(root_.c_str(), kDir));
      }
    }
    while (next) {
      const int parent = next.get();
      dirs.fds.push_back(std::move(next));
      dirs.complete = dirs.fds.size() == dirs.names.size();
      if (dirs.complete) return dirs;
      const char* own = dirs.names[dirs.fds.size() - 1].c_str();
      next.reset(::openat(parent, own, kDir | O_NOFOLLOW));
      if (!next && errno == ENOENT && create) {
        if (::mkdirat(parent, own, 0700) != 0 && errno != EEXIST) fail(what, errno);
        sync_entries(parent, what);
        next.reset(::openat(parent, own, kDir | O_NOFOLLOW));
      }
    }
    // A file or a link in a directory's place means for a reader that there is no such object.
    if (create || (errno != ENOENT && errno != ENOTDIR && errno != ELOOP)) fail(what, errno);
    return dirs;
  }

  // Empty when there is no such object.
  UniqueFd open_object(std::string_view name, const std::string& what) const {
    const Dirs dirs = open_dirs(name, false, what);
    if (!dirs.complete) return {};
    UniqueFd file(
        ::openat(dirs.fds.back().get(), dirs.names.back().c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!file) {
      if (errno == ENOENT || errno == ELOOP) return {};
      fail(what, errno);
    }
    struct stat st {};
    if (::fstat(file.get(), &st) != 0) fail(what, errno);
    if (!S_ISREG(st.st_mode)) return {};
    return file;
  }

  // Whether the file `leaf` of `dir` is byte for byte `body`.
  static bool holds(int dir, const std::string& leaf, const Buffer& body, const std::string& what) {
    const UniqueFd file(::openat(dir, leaf.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat st {};
    if (!file && errno == ENOENT) fail(what, ENOENT);  // gone meanwhile: once more
    if (!file || ::fstat(file.get(), &st) != 0 || !S_ISREG(st.st_mode)) return false;
    if (static_cast<std::uint64_t>(st.st_size) != body.size()) return false;
    std::vector<std::byte> there(kChunkBytes);
    for (Bytes chunk : body.chunks()) {
      while (!chunk.empty()) {
        const ssize_t n = ::read(file.get(), there.data(), std::min(there.size(), chunk.size()));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail(what, errno);
        const auto got = static_cast<std::size_t>(n);
        if (got == 0 || !std::equal(there.begin(), there.begin() + n, chunk.begin())) return false;
        chunk = chunk.subspan(got);
      }
    }
    return true;
  }

  bool put_once(std::string_view name, const Buffer& body, bool only_new, const std::stop_token& stop) const {
    const std::string what = "put " + shown(name);
    std::shared_lock no_pruning(pruning_);
    const Dirs dirs = open_dirs(name, true, what);
    const int dir = dirs.fds.back().get();
    TempFile temp(dir, dirs.names.back());
    if (temp.fd() < 0) fail(what, errno);
    no_pruning.unlock();
    for (Bytes chunk : body.chunks()) {
      if (stop.stop_requested()) fail_cancelled(what);
      while (!chunk.empty()) {
        const ssize_t n = ::write(temp.fd(), chunk.data(), chunk.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail(what, errno);
        chunk = chunk.subspan(static_cast<std::size_t>(n));
      }
    }
    if (::fsync(temp.fd()) != 0) fail(what, errno);
    if (stop.stop_requested()) fail_cancelled(what);
    bool ours = true;
    if (!only_new) {
      if (!temp.rename_to(dirs.names.back())) fail(what, errno);
    } else if (!temp.link_to(dirs.names.back())) {
      if (errno != EEXIST) fail(what, errno);
      ours = holds(dir, dirs.names.back(), body, what);
    }
    sync_entries(dir, what);
    return ours;
  }

  void walk(int dir_fd, const std::string& base, std::string_view prefix,
            const std::function<void(const ObjectInfo&)>& each, const std::stop_token& stop) const {
    std::vector<std::string> entries;  // directories end in "/", which gives the order of whole names
    const Dir dir = read_dir(dir_fd);
    if (!dir) {
      if (errno == ENOENT) return;
      fail("list " + shown(base), errno);
    }
    while (const dirent* entry = ::readdir(dir.get())) {
      std::string name = base + entry->d_name;
      if (is_dots(entry->d_name) || !valid_object_name(name)) continue;
      struct stat st {};
      if (::fstatat(dir_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
      if (S_ISDIR(st.st_mode))
        name += '/';
      else if (!S_ISREG(st.st_mode))
        continue;
      if (name.starts_with(prefix) || (name.back() == '/' && prefix.starts_with(name)))
        entries.push_back(std::move(name));
    }
    std::ranges::sort(entries);
    for (const auto& name : entries) {
      if (stop.stop_requested()) fail_cancelled("list " + root_.string());
      const bool is_dir = name.back() == '/';
      const std::string leaf = name.substr(base.size(), name.size() - base.size() - (is_dir ? 1 : 0));
      if (is_dir) {
        const UniqueFd below(::openat(dir_fd, leaf.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (below)
          walk(below.get(), name, prefix, each, stop);
        else if (errno != ENOENT)
          fail("list " + shown(name), errno);
        continue;
      }
      struct stat st {};
      if (::fstatat(dir_fd, leaf.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) each(info(name, st));
    }
  }

  const fs::path root_;  // absolute, normal, without a slash at its end
  const fs::path fstab_;
  // Held for making a directory and a file in it, and exclusively for taking empty directories away.
  mutable std::shared_mutex pruning_;
};

}  // namespace

std::unique_ptr<ObjectStore> make_local_store(const fs::path& path, std::string_view container, std::string_view prefix,
                                              const fs::path& fstab) {
  std::string root = fs::absolute(path).string();
  root += "/" + std::string(container) + "/" + std::string(prefix);
  root = fs::path(root).lexically_normal();
  while (root.size() > 1 && root.back() == '/') root.pop_back();
  return std::make_unique<LocalStore>(root, fstab);
}

}  // namespace guestagent

// The walks over whole trees of base/file.h. All go by directory descriptors, so that a name that is
// exchanged for a symbolic link meanwhile leads nowhere else.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "base/dir_walk.h"
#include "base/error.h"
#include "base/file.h"
#include "base/held_dir.h"

namespace guestagent {
namespace {

struct DirCloser {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using Dir = std::unique_ptr<DIR, DirCloser>;

// nullptr with errno when it cannot be opened.
Dir open_dir(int parent, const char* name, bool follow) {
  UniqueFd fd(::openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW)));
  if (!fd) return nullptr;
  Dir dir(::fdopendir(fd.get()));
  if (dir) fd.release();
  return dir;
}

// The same of a directory that is open already, and stays so.
Dir reopen_dir(int fd, const fs::path& path) {
  Dir dir = open_dir(fd, ".", false);
  if (!dir) throw system_error("reading the directory " + path.string(), errno);
  return dir;
}

// The next name that is not "." or "..", nullptr at the end. Throws on a read error.
const char* next_name(DIR* dir, const fs::path& path) {
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(dir);
    if (entry == nullptr) {
      if (errno != 0) throw system_error("reading the directory " + path.string(), errno);
      return nullptr;
    }
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") return entry->d_name;
  }
}

// Which mount a directory (`name` empty: `dir` itself) belongs to. Bind mounts share the device number, so the mount's
// own id is asked for where the kernel knows it.
struct MountId {
  std::uint64_t id = 0;
  std::uint64_t device = 0;
  bool operator==(const MountId&) const = default;
};

MountId mount_of(int dir, const char* name, const fs::path& path) {
  struct statx info {};
  const int flags = *name == '\0' ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
  if (::statx(dir, name, flags, STATX_TYPE | STATX_MNT_ID, &info) != 0) {
    throw system_error("looking at " + path.string(), errno);
  }
  return {(info.stx_mask & STATX_MNT_ID) != 0 ? info.stx_mnt_id : 0,
          (std::uint64_t{info.stx_dev_major} << 32) | info.stx_dev_minor};
}

// Goes on after a failure, so that as much as possible goes; the first one is told at the end.
struct Removal {
  std::optional<Error> failure;
  std::size_t failures = 0;

  void failed(const Error& error) {
    if (!failure) failure = error;
    ++failures;
  }

  void remove(int parent, const char* name, const fs::path& path, const MountId& mount) {
    if (::unlinkat(parent, name, 0) == 0 || errno == ENOENT) return;
    const int unlink_error = errno;
    struct stat info {};
    if (::fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno != ENOENT) failed(system_error("removing " + path.string(), errno));
      return;
    }
    if (!S_ISDIR(info.st_mode)) return failed(system_error("removing " + path.string(), unlink_error));
    try {
      if (!(mount_of(parent, name, path) == mount)) {
        return failed(Error(Code::failed_precondition,
                            "removing " + path.string() + ": another file system is mounted there",
                            "unmount it first"));
      }
      const Dir dir = open_dir(parent, name, false);
      if (!dir) {
        if (errno != ENOENT) failed(system_error("removing " + path.string(), errno));
        return;
      }
      const std::size_t before = failures;
      while (const char* child = next_name(dir.get(), path)) remove(::dirfd(dir.get()), child, path / child, mount);
      if (failures != before) return;
    } catch (const Error& e) {
      return failed(e);
    }
    if (::unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
      failed(system_error("removing " + path.string(), errno));
  }

  void end() const {
    if (!failure) return;
    if (failures == 1) throw *failure;
    throw Error(failure->code(), std::string(failure->what()) + " (and " + std::to_string(failures - 1) + " more)",
                failure->hint());
  }
};

std::uint64_t sum_sizes(DIR* dir, const fs::path& path) {
  std::uint64_t sum = 0;
  while (const char* name = next_name(dir, path)) {
    struct stat info {};
    if (::fstatat(::dirfd(dir), name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;
      throw system_error("looking at " + (path / name).string(), errno);
    }
    if (S_ISREG(info.st_mode)) sum += static_cast<std::uint64_t>(info.st_size);
    if (!S_ISDIR(info.st_mode)) continue;
    if (const Dir child = open_dir(::dirfd(dir), name, false)) {
      sum += sum_sizes(child.get(), path / name);
    } else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP) {
      throw system_error("reading the directory " + (path / name).string(), errno);
    }
  }
  return sum;
}

void fsync_below(DIR* dir, const fs::path& path) {
  while (const char* name = next_name(dir, path)) {
    const fs::path full = path / name;
    struct stat info {};
    if (::fstatat(::dirfd(dir), name, &info, AT_SYMLINK_NOFOLLOW) != 0)
      throw system_error("looking at " + full.string(), errno);
    if (S_ISDIR(info.st_mode)) {
      const Dir child = open_dir(::dirfd(dir), name, false);
      if (!child) throw system_error("reading the directory " + full.string(), errno);
      fsync_below(child.get(), full);
    } else if (S_ISREG(info.st_mode)) {
      const UniqueFd fd(::openat(::dirfd(dir), name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
      if (!fd || ::fsync(fd.get()) != 0) throw system_error("making " + full.string() + " durable", errno);
    }
  }
  if (const int err = fsync_dir_fd(::dirfd(dir)); err != 0) {
    throw system_error("making the directory " + path.string() + " durable", err);
  }
}

}  // namespace

void remove_tree(const fs::path& path) {
  fs::path clean = path.lexically_normal();
  if (!clean.has_filename()) clean = clean.parent_path();
  if (clean.empty() || clean == clean.root_path() || clean == "." || clean.filename() == "..") {
    throw Error(Code::invalid_argument, "removing \"" + path.string() + "\": it names no file or directory of its own");
  }
  const fs::path parent_path = clean.has_parent_path() ? clean.parent_path() : fs::path(".");
  UniqueFd parent;
  try {
    parent = open_directory(parent_path, O_PATH);
  } catch (const Error& e) {
    struct stat info {};
    if (e.code() == Code::not_found || (::lstat(clean.c_str(), &info) != 0 && (errno == ENOENT || errno == ENOTDIR)))
      return;
    throw Error(e.code(), "removing " + path.string() + ": " + e.what(), e.hint());
  }
  remove_entry(parent.get(), clean.filename().string(), clean);
}

void remove_entry(int dir, const std::string& name, const fs::path& shown) {
  Removal removal;
  removal.remove(dir, name.c_str(), shown, mount_of(dir, "", shown));
  removal.end();
}

void remove_below(int dir, const fs::path& shown) {
  const Dir names = reopen_dir(dir, shown);
  const MountId mount = mount_of(dir, "", shown);
  Removal removal;
  while (const char* name = next_name(names.get(), shown)) removal.remove(dir, name, shown / name, mount);
  removal.end();
}

void list_names(int dir, const fs::path& shown, std::vector<std::string>& names) {
  const Dir open = reopen_dir(dir, shown);
  while (const char* name = next_name(open.get(), shown)) names.emplace_back(name);
}

std::optional<std::string> first_name(int dir, const fs::path& shown) {
  const Dir names = reopen_dir(dir, shown);
  const char* name = next_name(names.get(), shown);
  return name == nullptr ? std::nullopt : std::optional<std::string>(name);
}

void walk_below(int dir, const fs::path& below, const fs::path& shown, const WalkVisit& visit) {
  const Dir names = reopen_dir(dir, shown);
  while (const char* name = next_name(names.get(), shown)) {
    struct stat info {};
    if (::fstatat(dir, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
      throw system_error("looking at " + (shown / name).string(), errno);
    visit(dir, name, below / name, info);
    if (!S_ISDIR(info.st_mode)) continue;
    const UniqueFd child(::openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!child) throw system_error("reading the directory " + (shown / name).string(), errno);
    walk_below(child.get(), below / name, shown / name, visit);
  }
}

std::uint64_t tree_bytes(const fs::path& dir) {
  const Dir root = open_dir(AT_FDCWD, dir.c_str(), true);
  if (!root) throw system_error("reading the directory " + dir.string(), errno);
  return sum_sizes(root.get(), dir);
}

void sync_below(int dir, const fs::path& shown) {
  fsync_below(reopen_dir(dir, shown).get(), shown);
}

void fsync_tree(const fs::path& dir) {
  const Dir root = open_dir(AT_FDCWD, dir.c_str(), true);
  if (!root) throw system_error("reading the directory " + dir.string(), errno);
  fsync_below(root.get(), dir);
}

}  // namespace guestagent

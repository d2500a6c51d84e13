// The walks over whole trees of base/file.h. All go by directory descriptors, so that a name that is
// exchanged for a symbolic link meanwhile leads nowhere else.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/file.h"

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

// Which mount a directory belongs to. Bind mounts share the device number, so the mount's own id is asked for
// where the kernel knows it.
struct MountId {
  std::uint64_t id = 0;
  std::uint64_t device = 0;
  bool operator==(const MountId&) const = default;
};

MountId mount_of(int dir, const char* name, const fs::path& path) {
  struct statx info {};
  if (::statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE | STATX_MNT_ID, &info) != 0) {
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
      while (const char* child = next_name(dir.get(), path))
        remove(::dirfd(dir.get()), child, path / child, mount);
      if (failures != before) return;
    } catch (const Error& e) {
      return failed(e);
    }
    if (::unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
      failed(system_error("removing " + path.string(), errno));
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
    throw Error(Code::invalid_argument,
                "removing \"" + path.string() + "\": it names no file or directory of its own");
  }
  const fs::path parent_path = clean.has_parent_path() ? clean.parent_path() : fs::path(".");
  const UniqueFd parent(::open(parent_path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!parent) {
    if (errno == ENOENT || errno == ENOTDIR) return;
    throw system_error("removing " + path.string(), errno);
  }
  Removal removal;
  const MountId mount = [&] {
    struct statx info {};
    if (::statx(parent.get(), "", AT_EMPTY_PATH, STATX_TYPE | STATX_MNT_ID, &info) != 0) {
      throw system_error("looking at " + parent_path.string(), errno);
    }
    return MountId{(info.stx_mask & STATX_MNT_ID) != 0 ? info.stx_mnt_id : 0,
                   (std::uint64_t{info.stx_dev_major} << 32) | info.stx_dev_minor};
  }();
  removal.remove(parent.get(), clean.filename().c_str(), clean, mount);
  if (!removal.failure) return;
  if (removal.failures == 1) throw *removal.failure;
  throw Error(
      removal.failure->code(),
      std::string(removal.failure->what()) + " (and " + std::to_string(removal.failures - 1) + " more)",
      removal.failure->hint());
}

std::uint64_t tree_bytes(const fs::path& dir) {
  const Dir root = open_dir(AT_FDCWD, dir.c_str(), true);
  if (!root) throw system_error("reading the directory " + dir.string(), errno);
  return sum_sizes(root.get(), dir);
}

void fsync_tree(const fs::path& dir) {
  const Dir root = open_dir(AT_FDCWD, dir.c_str(), true);
  if (!root) throw system_error("reading the directory " + dir.string(), errno);
  fsync_below(root.get(), dir);
}

}  // namespace guestagent

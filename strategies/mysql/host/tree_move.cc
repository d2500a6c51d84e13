#include "strategies/mysql/host/tree_move.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <string>
#include <vector>

#include "base/dir_walk.h"
#include "base/error.h"
#include "base/held_dir.h"
#include "base/journal.h"

namespace guestagent::mysql {
namespace {

// An entry of a directory that is held open. Its path is for messages alone.
struct Place {
  int dir;
  std::string name;
  fs::path shown;
};

struct stat look(const Place& place) {
  struct stat info {};
  if (::fstatat(place.dir, place.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
    throw system_error("looking at " + place.shown.string(), errno);
  return info;
}

bool there(const Place& place) {
  struct stat info {};
  if (::fstatat(place.dir, place.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  throw system_error("looking at " + place.shown.string(), errno);
}

void copy_range(int in, int out, off_t from, off_t end, const fs::path& path) {
  if (::lseek(in, from, SEEK_SET) < 0 || ::lseek(out, from, SEEK_SET) < 0)
    throw system_error("copying " + path.string(), errno);
  std::vector<char> buffer(std::size_t{1} << 20);
  while (from < end) {
    const std::size_t want = std::min<std::size_t>(buffer.size(), static_cast<std::size_t>(end - from));
    const ssize_t got = ::read(in, buffer.data(), want);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw system_error("copying " + path.string(), errno);
    if (got == 0) throw Error(Code::data_loss, "copying " + path.string() + ": it became shorter meanwhile");
    for (ssize_t done = 0; done < got;) {
      const ssize_t n = ::write(out, buffer.data() + done, static_cast<std::size_t>(got - done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw system_error("copying " + path.string(), errno);
      done += n;
    }
    from += got;
  }
}

// Holes stay holes: page-compressed tables are full of them.
void copy_content(int in, int out, const struct stat& info, const Place& from, const Place& to) {
  off_t at = 0;
  while (at < info.st_size) {
    const off_t data = ::lseek(in, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) {
      copy_range(in, out, at, info.st_size, from.shown);
      break;
    }
    const off_t hole = ::lseek(in, data, SEEK_HOLE);
    copy_range(in, out, data, hole < 0 ? info.st_size : hole, from.shown);
    at = hole < 0 ? info.st_size : hole;
  }
  if (::ftruncate(out, info.st_size) != 0 || ::fsync(out) != 0)
    throw system_error("copying to " + to.shown.string(), errno);
}

// The security context among them; a file system that knows none has none to keep.
void copy_attributes(int in, int out, const Place& from, const Place& to) {
  std::vector<char> names(64 << 10);
  const ssize_t size = ::flistxattr(in, names.data(), names.size());
  if (size < 0) {
    if (errno == ENOTSUP) return;
    throw system_error("reading the attributes of " + from.shown.string(), errno);
  }
  std::vector<char> value(64 << 10);
  for (ssize_t at = 0; at < size;) {
    const std::string name = names.data() + at;
    at += static_cast<ssize_t>(name.size()) + 1;
    const ssize_t length = ::fgetxattr(in, name.c_str(), value.data(), value.size());
    if (length < 0) throw system_error("reading the attribute " + name + " of " + from.shown.string(), errno);
    if (::fsetxattr(out, name.c_str(), value.data(), static_cast<std::size_t>(length), 0) != 0 && errno != ENOTSUP) {
      throw system_error("setting the attribute " + name + " of " + to.shown.string(), errno);
    }
  }
}

// What is left to set, once the content is there.
void copy_rest(int in, int out, const struct stat& info, const Place& from, const Place& to) {
  if (::fchown(out, info.st_uid, info.st_gid) != 0)
    throw system_error("setting the owner of " + to.shown.string(), errno);
  if (::fchmod(out, info.st_mode & 07777) != 0) throw system_error("setting the mode of " + to.shown.string(), errno);
  copy_attributes(in, out, from, to);
  const std::array<timespec, 2> times = {info.st_atim, info.st_mtim};
  if (::futimens(out, times.data()) != 0) throw system_error("setting the times of " + to.shown.string(), errno);
}

void copy_link(const Place& from, const Place& to, const struct stat& info) {
  std::array<char, PATH_MAX> target{};
  const ssize_t size = ::readlinkat(from.dir, from.name.c_str(), target.data(), target.size() - 1);
  if (size < 0 || ::symlinkat(target.data(), to.dir, to.name.c_str()) != 0)
    throw system_error("copying " + from.shown.string(), errno);
  const std::array<timespec, 2> times = {info.st_atim, info.st_mtim};
  if (::fchownat(to.dir, to.name.c_str(), info.st_uid, info.st_gid, AT_SYMLINK_NOFOLLOW) != 0 ||
      ::utimensat(to.dir, to.name.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) != 0) {
    throw system_error("setting the owner of " + to.shown.string(), errno);
  }
}

std::uint64_t mount_id(int dir, const std::string& name, const fs::path& shown) {
  struct statx info {};
  if (::statx(dir, name.c_str(), name.empty() ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_MNT_ID,
              &info) != 0) {
    throw system_error("looking at " + shown.string(), errno);
  }
  return (std::uint64_t{info.stx_dev_major} << 48) ^ (std::uint64_t{info.stx_dev_minor} << 32) ^ info.stx_mnt_id;
}

void copy_entry(const Place& from, const Place& to);

void copy_children(int in, int out, const Place& from, const Place& to) {
  std::vector<std::string> names;
  list_names(in, from.shown, names);
  for (const std::string& name : names) {
    const Place child{in, name, from.shown / name};
    if (mount_id(in, name, child.shown) != mount_id(in, "", from.shown)) {
      throw Error(Code::failed_precondition,
                  "copying " + child.shown.string() + ": another file system is mounted there",
                  "unmount it, or let only the data directory itself be a mount point");
    }
    copy_entry(child, {out, name, to.shown / name});
  }
  if (::fsync(out) != 0 && errno != EINVAL) throw system_error("copying to " + to.shown.string(), errno);
}

void copy_entry(const Place& from, const Place& to) {
  struct stat info = look(from);
  if (S_ISSOCK(info.st_mode)) return;
  if (S_ISLNK(info.st_mode)) return copy_link(from, to, info);
  const bool regular = S_ISREG(info.st_mode);
  if (!regular && !S_ISDIR(info.st_mode)) {
    throw Error(Code::failed_precondition,
                "copying " + from.shown.string() + ": it is neither a file, a directory nor a link",
                "remove it: no database server makes such a thing");
  }
  const int how = regular ? O_NONBLOCK | O_NOCTTY : O_DIRECTORY;
  const UniqueFd in(::openat(from.dir, from.name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | how));
  // What was opened is what is copied, with its own owner: its name may lead elsewhere by now.
  if (!in || ::fstat(in.get(), &info) != 0) throw system_error("copying " + from.shown.string(), errno);
  if (regular != S_ISREG(info.st_mode))
    throw Error(Code::failed_precondition, "copying " + from.shown.string() + ": it became another thing meanwhile");
  if (!regular && ::mkdirat(to.dir, to.name.c_str(), 0700) != 0)
    throw system_error("making " + to.shown.string(), errno);
  const UniqueFd out(regular
                         ? ::openat(to.dir, to.name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)
                         : ::openat(to.dir, to.name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!out) throw system_error("copying to " + to.shown.string(), errno);
  if (regular) {
    copy_content(in.get(), out.get(), info, from, to);
  } else {
    copy_children(in.get(), out.get(), from, to);
  }
  copy_rest(in.get(), out.get(), info, from, to);
}

// The directories of a move, and the names in them that it works with.
struct Move {
  UniqueFd from_fd, to_fd;
  fs::path from, to;

  Move(const fs::path& from_dir, const fs::path& to_dir)
      : from_fd(open_directory(from_dir, O_RDONLY)),
        to_fd(open_directory(to_dir, O_RDONLY)),
        from(from_dir),
        to(to_dir) {}
  Place in_from(const std::string& name) const { return {from_fd.get(), name, from / name}; }
  Place in_to(const std::string& name) const { return {to_fd.get(), name, to / name}; }
};

void remove(const Place& place) {
  remove_entry(place.dir, place.name, place.shown);
}

bool renamed(const Place& a, const Place& b) {
  return ::renameat(a.dir, a.name.c_str(), b.dir, b.name.c_str()) == 0;
}

}  // namespace

void copy_tree(const fs::path& from, const fs::path& to) {
  const UniqueFd in = open_directory(from.parent_path(), O_PATH), out = open_directory(to.parent_path(), O_PATH);
  copy_entry({in.get(), from.filename().string(), from}, {out.get(), to.filename().string(), to});
}

void move_entry(const fs::path& from, const fs::path& to, const fs::path& name) {
  const Move move(from, to);
  const Place source = move.in_from(name.string()), target = move.in_to(name.string());
  const Place partial = move.in_to(std::string(kPartialPrefix) + name.string());
  const Place trash = move.in_from(std::string(kTrashPrefix) + name.string());
  const Place waste = move.in_from(std::string(kWastePrefix) + name.string());
  remove(partial);
  remove(trash);
  if (there(waste)) {
    remove(source);
    remove(waste);
  }
  const std::string doing = "moving " + source.shown.string() + " to " + to.string();
  if (!there(source)) {
    if (there(target)) return;
    throw Error(Code::not_found, doing + ": it is in neither place");
  }
  if (!there(target)) {
    if (::renameat2(source.dir, source.name.c_str(), target.dir, target.name.c_str(), RENAME_NOREPLACE) == 0) return;
    // NOREPLACE is unknown to some file systems; nobody else writes here, so a plain rename is as good.
    if (errno == EINVAL && renamed(source, target)) return;
    if (errno == EBUSY) {
      throw Error(Code::failed_precondition,
                  "moving " + source.shown.string() + ": another file system is mounted there",
                  "unmount it, or let only the data directory itself be a mount point");
    }
    if (errno != EXDEV) throw system_error(doing, errno);
    copy_entry(source, partial);
    failpoint("move:copied");
    if (there(partial)) {
      if (!renamed(partial, target)) throw system_error(doing, errno);
      if (::fsync(move.to_fd.get()) != 0 && errno != EINVAL) throw system_error(doing, errno);
    }
  }
  failpoint("move:both");
  // Out of its name first: a directory that is half removed must not pass for the whole one.
  if (renamed(source, trash)) {
    failpoint("move:trash");
    remove(trash);
    return;
  }
  if (errno != EXDEV) throw system_error("removing " + source.shown.string(), errno);
  // A directory of a lower layer of overlayfs cannot even change its name: a mark beside it says the same.
  write_file_in(waste.dir, from, waste.name, "", 0644);
  failpoint("move:waste");
  remove(source);
  remove(waste);
}

void remove_move_leftovers(const fs::path& dir) {
  struct stat info {};
  if (::lstat(dir.c_str(), &info) != 0 && (errno == ENOENT || errno == ENOTDIR)) return;
  const UniqueFd fd = open_directory(dir, O_RDONLY);
  std::vector<std::string> names;
  list_names(fd.get(), dir, names);
  for (const std::string& name : names) {
    if (name.starts_with(kWastePrefix)) {
      const std::string waste = name.substr(kWastePrefix.size());
      remove({fd.get(), waste, dir / waste});
    }
    if (name.starts_with(kPartialPrefix) || name.starts_with(kTrashPrefix) || name.starts_with(kWastePrefix)) {
      remove({fd.get(), name, dir / name});
    }
  }
}

bool is_mount_point(const fs::path& path) {
  // A file can be bind-mounted too.
  const std::uint64_t own = mount_id(AT_FDCWD, path.string(), path);
  return path.has_parent_path() && path != path.root_path() &&
         own != mount_id(AT_FDCWD, path.parent_path().string(), path);
}

bool same_file_system(const fs::path& a, const fs::path& b) {
  struct stat first {
  }, second{};
  if (::stat(a.c_str(), &first) != 0) throw system_error("looking at " + a.string(), errno);
  if (::stat(b.c_str(), &second) != 0) throw system_error("looking at " + b.string(), errno);
  return first.st_dev == second.st_dev && mount_id(AT_FDCWD, a.string(), a) == mount_id(AT_FDCWD, b.string(), b);
}

}  // namespace guestagent::mysql

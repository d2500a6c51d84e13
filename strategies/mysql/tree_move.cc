#include "strategies/mysql/tree_move.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/journal.h"

namespace guestagent::mysql {
namespace {

struct stat look(const fs::path& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) throw system_error("looking at " + path.string(), errno);
  return info;
}

bool there(const fs::path& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  throw system_error("looking at " + path.string(), errno);
}

void copy_range(int in, int out, off_t from, off_t end, const fs::path& path) {
  if (::lseek(in, from, SEEK_SET) < 0 || ::lseek(out, from, SEEK_SET) < 0) throw system_error("copying " + path.string(), errno);
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
void copy_content(const fs::path& from, const fs::path& to, const struct stat& info) {
  const UniqueFd in(::open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!in) throw system_error("copying " + from.string(), errno);
  const UniqueFd out(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!out) throw system_error("copying to " + to.string(), errno);
  off_t at = 0;
  while (at < info.st_size) {
    const off_t data = ::lseek(in.get(), at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) {
      copy_range(in.get(), out.get(), at, info.st_size, from);
      break;
    }
    const off_t hole = ::lseek(in.get(), data, SEEK_HOLE);
    copy_range(in.get(), out.get(), data, hole < 0 ? info.st_size : hole, from);
    at = hole < 0 ? info.st_size : hole;
  }
  if (::ftruncate(out.get(), info.st_size) != 0 || ::fsync(out.get()) != 0) throw system_error("copying to " + to.string(), errno);
}

// The security context among them; a file system that knows none has none to keep.
void copy_attributes(const fs::path& from, const fs::path& to) {
  std::vector<char> names(64 << 10);
  const ssize_t size = ::llistxattr(from.c_str(), names.data(), names.size());
  if (size < 0) {
    if (errno == ENOTSUP) return;
    throw system_error("reading the attributes of " + from.string(), errno);
  }
  std::vector<char> value(64 << 10);
  for (ssize_t at = 0; at < size;) {
    const std::string name = names.data() + at;
    at += static_cast<ssize_t>(name.size()) + 1;
    const ssize_t length = ::lgetxattr(from.c_str(), name.c_str(), value.data(), value.size());
    if (length < 0) throw system_error("reading the attribute " + name + " of " + from.string(), errno);
    if (::lsetxattr(to.c_str(), name.c_str(), value.data(), static_cast<std::size_t>(length), 0) != 0 && errno != ENOTSUP) {
      throw system_error("setting the attribute " + name + " of " + to.string(), errno);
    }
  }
}

void copy_ownership(const fs::path& to, const struct stat& info) {
  if (::lchown(to.c_str(), info.st_uid, info.st_gid) != 0) throw system_error("setting the owner of " + to.string(), errno);
  if (!S_ISLNK(info.st_mode) && ::chmod(to.c_str(), info.st_mode & 07777) != 0) {
    throw system_error("setting the mode of " + to.string(), errno);
  }
}

void copy_times(const fs::path& to, const struct stat& info) {
  const std::array<timespec, 2> times = {info.st_atim, info.st_mtim};
  if (::utimensat(AT_FDCWD, to.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) != 0) {
    throw system_error("setting the times of " + to.string(), errno);
  }
}

std::uint64_t mount_id(const fs::path& path) {
  struct statx info {};
  if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_MNT_ID, &info) != 0) {
    throw system_error("looking at " + path.string(), errno);
  }
  return (std::uint64_t{info.stx_dev_major} << 48) ^ (std::uint64_t{info.stx_dev_minor} << 32) ^ info.stx_mnt_id;
}

}  // namespace

void copy_tree(const fs::path& from, const fs::path& to) {
  const struct stat info = look(from);
  if (S_ISSOCK(info.st_mode)) return;
  if (S_ISLNK(info.st_mode)) {
    std::error_code ec;
    fs::copy_symlink(from, to, ec);
    if (ec) throw system_error("copying " + from.string(), ec.value());
  } else if (S_ISREG(info.st_mode)) {
    copy_content(from, to, info);
  } else if (S_ISDIR(info.st_mode)) {
    if (::mkdir(to.c_str(), 0700) != 0) throw system_error("making " + to.string(), errno);
    std::vector<fs::path> names;
    for (const auto& entry : fs::directory_iterator(from)) names.push_back(entry.path().filename());
    for (const fs::path& name : names) {
      if (is_mount_point(from / name)) {
        throw Error(Code::failed_precondition, "copying " + (from / name).string() + ": another file system is mounted there",
                    "unmount it, or let only the data directory itself be a mount point");
      }
      copy_tree(from / name, to / name);
    }
    fsync_dir(to);
  } else {
    throw Error(Code::failed_precondition, "copying " + from.string() + ": it is neither a file, a directory nor a link",
                "remove it: no database server makes such a thing");
  }
  copy_ownership(to, info);
  copy_attributes(from, to);
  copy_times(to, info);
}

void move_entry(const fs::path& from, const fs::path& to, const fs::path& name) {
  const fs::path source = from / name, target = to / name;
  const fs::path partial = to / (std::string(kPartialPrefix) + name.string());
  const fs::path trash = from / (std::string(kTrashPrefix) + name.string());
  const fs::path waste = from / (std::string(kWastePrefix) + name.string());
  remove_tree(partial);
  remove_tree(trash);
  if (there(waste)) {
    remove_tree(source);
    remove_tree(waste);
  }
  if (!there(source)) {
    if (there(target)) return;
    throw Error(Code::not_found, "moving " + source.string() + " to " + to.string() + ": it is in neither place");
  }
  if (!there(target)) {
    if (::renameat2(AT_FDCWD, source.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE) == 0) return;
    // NOREPLACE is unknown to some file systems; nobody else writes here, so a plain rename is as good.
    if (errno == EINVAL && ::rename(source.c_str(), target.c_str()) == 0) return;
    if (errno == EBUSY) {
      throw Error(Code::failed_precondition, "moving " + source.string() + ": another file system is mounted there",
                  "unmount it, or let only the data directory itself be a mount point");
    }
    if (errno != EXDEV) throw system_error("moving " + source.string() + " to " + to.string(), errno);
    copy_tree(source, partial);
    failpoint("move:copied");
    if (there(partial)) {
      if (::rename(partial.c_str(), target.c_str()) != 0) throw system_error("moving " + source.string() + " to " + to.string(), errno);
      fsync_dir(to);
    }
  }
  failpoint("move:both");
  // Out of its name first: a directory that is half removed must not pass for the whole one.
  if (::rename(source.c_str(), trash.c_str()) == 0) {
    failpoint("move:trash");
    remove_tree(trash);
    return;
  }
  if (errno != EXDEV) throw system_error("removing " + source.string(), errno);
  // A directory of a lower layer of overlayfs cannot even change its name: a mark beside it says the same.
  write_file_atomic(waste, "");
  failpoint("move:waste");
  remove_tree(source);
  remove_tree(waste);
}

void remove_move_leftovers(const fs::path& dir) {
  std::vector<fs::path> found;
  if (!there(dir)) return;
  for (const auto& entry : fs::directory_iterator(dir)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPartialPrefix) || name.starts_with(kTrashPrefix)) found.push_back(entry.path());
    if (name.starts_with(kWastePrefix)) {
      found.push_back(dir / name.substr(kWastePrefix.size()));
      found.push_back(entry.path());
    }
  }
  for (const fs::path& path : found) remove_tree(path);
}

bool is_mount_point(const fs::path& path) {
  const struct stat info = look(path);
  if (!S_ISDIR(info.st_mode)) {
    // A file can be bind-mounted too.
    return mount_id(path) != mount_id(path.parent_path());
  }
  return path.has_parent_path() && path != path.root_path() && mount_id(path) != mount_id(path.parent_path());
}

bool same_file_system(const fs::path& a, const fs::path& b) {
  struct stat first {}, second {};
  if (::stat(a.c_str(), &first) != 0) throw system_error("looking at " + a.string(), errno);
  if (::stat(b.c_str(), &second) != 0) throw system_error("looking at " + b.string(), errno);
  return first.st_dev == second.st_dev && mount_id(a) == mount_id(b);
}

}  // namespace guestagent::mysql

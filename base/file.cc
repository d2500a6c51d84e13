#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <chrono>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/dir_walk.h"
#include "base/error.h"
#include "base/held_dir.h"
#include "base/log.h"
#include "base/secret.h"

namespace guestagent {
namespace {

void write_all(int fd, std::string_view content, const std::string& doing) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error(doing, errno);
    content.remove_prefix(static_cast<std::size_t>(n));
  }
}

struct statvfs volume_of(fs::path path) {
  struct statvfs info {};
  for (;;) {
    if (::statvfs(path.empty() ? "." : path.c_str(), &info) == 0) return info;
    if ((errno != ENOENT && errno != ENOTDIR) || path.empty() || path == path.root_path()) {
      throw system_error("looking at the file system of " + path.string(), errno);
    }
    path = path.has_filename() ? path.parent_path() : path.parent_path().parent_path();
  }
}

// EINVAL: a file system that has no such thing as a directory that is not durable.
void fsync_open_dir(int fd, const fs::path& dir) {
  if (const int err = fsync_dir_fd(fd); err != 0)
    throw system_error("making the directory " + dir.string() + " durable", err);
}

// The directory `name` in `parent`, made when it was not there: then durable, and with `made` set.
UniqueFd enter_or_make(int parent, const fs::path& path, unsigned mode, const std::string& doing, bool& made) {
  const std::string name = path.filename().string();
  made = ::mkdirat(parent, name.c_str(), mode) == 0;
  if (!made && errno != EEXIST) throw system_error(doing, errno);
  if (made) {
    const UniqueFd readable(::openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (readable) fsync_open_dir(readable.get(), path.parent_path());
    // Who may add to a directory may not always list it; then it cannot be asked for either.
    if (!readable && errno != EACCES) throw system_error(doing, errno);
  }
  UniqueFd out(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!out && !made && (errno == ELOOP || errno == ENOTDIR))
    return with_context(doing, [&] { return open_directory(path, O_RDONLY); });
  if (!out) throw system_error(doing, errno);
  return out;
}

// Who only looks holds a shared lock for an instant: a lock counts as another's when it is still held some instants
// later.
bool lock_now(int fd, int kind, const std::string& doing) {
  constexpr int kLooks = 5;
  constexpr std::chrono::milliseconds kPause{3};
  for (int look = 1;;) {
    if (::flock(fd, kind | LOCK_NB) == 0) return true;
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) throw system_error(doing, errno);
    if (look++ == kLooks) return false;
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace

namespace {

UniqueFd open_to_read(const fs::path& path) {
  // Not blocking in open(): a named pipe that nobody writes must not hang the agent.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) throw system_error("reading " + path.string(), errno);
  return fd;
}

}  // namespace

std::string read_file(const fs::path& path, std::size_t max_bytes) {
  return read_open_file(open_to_read(path), path, max_bytes);
}

std::string read_trusted_file(const fs::path& path, std::size_t max_bytes) {
  const UniqueFd fd = open_to_read(path);
  require_trusted(fd.get(), "reading " + path.string(), path);
  return read_open_file(fd, path, max_bytes);
}

std::string read_open_file(const UniqueFd& fd, const fs::path& shown, std::size_t max_bytes) {
  const std::string doing = "reading " + shown.string();
  if (::fcntl(fd.get(), F_SETFL, 0) != 0) throw system_error(doing, errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) throw system_error(doing, errno);
  if (S_ISDIR(info.st_mode))
    throw Error(Code::invalid_argument, doing + ": it is a directory", "name a file, not the directory that it is in");
  const auto expected = info.st_size > 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
  const auto too_large = [&] {
    return Error(Code::resource_exhausted, doing + ": it is larger than " + std::to_string(max_bytes) + " bytes");
  };
  if (S_ISREG(info.st_mode) && expected > max_bytes) throw too_large();
  std::string content;
  std::size_t size = 0;
  content.resize(S_ISREG(info.st_mode) ? expected + 1 : 4096);
  for (;;) {
    const ssize_t n = ::read(fd.get(), content.data() + size, content.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error(doing, errno);
    if (n == 0) break;
    size += static_cast<std::size_t>(n);
    if (size > max_bytes) throw too_large();
    if (size == content.size()) content.resize(2 * size);
  }
  content.resize(size);
  return content;
}

void require_trusted(int fd, std::string_view doing, const fs::path& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) throw system_error(doing, errno);
  const uid_t self = ::geteuid();
  if (info.st_uid != 0 && info.st_uid != self) {
    throw Error(
        Code::permission_denied,
        std::string(doing) + ": it belongs to user " + std::to_string(info.st_uid) + ", who could put anything there",
        "chown root " + path.string());
  }
  const mode_t writers = self == 0 ? S_IWGRP | S_IWOTH : S_IWOTH;
  if (S_ISREG(info.st_mode) && (info.st_mode & writers) != 0) {
    throw Error(Code::permission_denied, std::string(doing) + ": others than its owner can write it",
                "chmod go-w " + path.string());
  }
}

void write_file_atomic(const fs::path& path, std::string_view content, unsigned mode) {
  const UniqueFd dir =
      with_context("writing " + path.string(), [&] { return open_directory(path.parent_path(), O_RDONLY); });
  write_file_in(dir.get(), path.parent_path(), path.filename().string(), content, mode);
}

void write_file_in(int dir, const fs::path& shown, const std::string& name, std::string_view content, unsigned mode,
                   const std::optional<std::pair<uid_t, gid_t>>& owner) {
  const std::string doing = "writing " + (shown / name).string();
  const std::string temporary = "." + name + "." + random_hex(6) + ".tmp";
  UniqueFd fd(::openat(dir, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0600));
  if (!fd) throw system_error(doing, errno);
  try {
    write_all(fd.get(), content, doing);
    if (owner && ::fchown(fd.get(), owner->first, owner->second) != 0) throw system_error(doing, errno);
    if (::fchmod(fd.get(), mode) != 0) throw system_error(doing, errno);
    if (::fsync(fd.get()) != 0) throw system_error(doing, errno);
    if (::close(fd.release()) != 0) throw system_error(doing, errno);
    if (::renameat(dir, temporary.c_str(), dir, name.c_str()) != 0) throw system_error(doing, errno);
  } catch (...) {
    ::unlinkat(dir, temporary.c_str(), 0);
    throw;
  }
  fsync_open_dir(dir, shown);
}

int fsync_dir_fd(int fd) {
  if (::fsync(fd) == 0) return 0;
  const int err = errno;
  if (err != EINVAL && err != ENOTSUP && err != EOPNOTSUPP && err != ENOSYS) return err;
  static std::once_flag told;
  std::call_once(told, [&] {
    log_warning(
        "a file system cannot make directories durable (fsync): after a power cut, what was written last may be "
        "missing there",
        {{"why", std::generic_category().message(err)}});
  });
  return 0;
}

void fsync_dir(const fs::path& dir) {
  fsync_open_dir(open_directory(dir, O_RDONLY).get(), dir);
}

void fsync_file(const fs::path& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) throw system_error("making " + path.string() + " durable", errno);
  if (::fsync(fd.get()) != 0) throw system_error("making " + path.string() + " durable", errno);
}

void make_dir(const fs::path& dir, unsigned mode) {
  const std::string doing = "creating the directory " + dir.string();
  fs::path clean = fs::absolute(dir).lexically_normal();
  if (!clean.has_filename()) clean = clean.parent_path();
  fs::path there = clean.parent_path();
  std::vector<fs::path> missing;
  const auto is_missing = [](const fs::path& path) {
    struct stat info {};
    return ::lstat(path.c_str(), &info) != 0 && errno == ENOENT;
  };
  for (; is_missing(there); there = there.parent_path()) missing.push_back(there);
  UniqueFd fd = with_context(doing, [&] { return open_directory(there, O_PATH); });
  bool made = false;
  for (auto path = missing.rbegin(); path != missing.rend(); ++path)
    fd = enter_or_make(fd.get(), *path, 0777, doing, made);
  if (clean == clean.root_path()) return;
  fd = enter_or_make(fd.get(), clean, mode & 0700, doing, made);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) throw system_error(doing, errno);
  if ((info.st_mode & 07777) != mode && ::fchmod(fd.get(), mode) != 0) throw system_error(doing, errno);
}

std::uint64_t free_bytes(const fs::path& path) {
  const auto info = volume_of(path);
  return static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
}

std::uint64_t volume_bytes(const fs::path& path) {
  const auto info = volume_of(path);
  return static_cast<std::uint64_t>(info.f_blocks) * info.f_frsize;
}

bool FileLock::is_taken(const fs::path& path) {
  const std::string doing = "looking at the lock " + path.string();
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd && errno == ENOENT) return false;
  if (!fd) throw system_error(doing, errno);
  return !lock_now(fd.get(), LOCK_SH, doing);
}

std::optional<FileLock> FileLock::try_take(const fs::path& path, std::string_view note) {
  const std::string doing = "locking " + path.string();
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!fd) throw system_error(doing, errno);
  if (!lock_now(fd.get(), LOCK_EX, doing)) return std::nullopt;
  if (::ftruncate(fd.get(), 0) != 0) throw system_error(doing, errno);
  write_all(fd.get(), note.empty() ? "pid " + std::to_string(::getpid()) : std::string(note), doing);
  return FileLock(std::move(fd));
}

TempDir::TempDir(const fs::path& parent, std::string_view name_prefix) {
  std::string pattern = (parent / (std::string(name_prefix) + "XXXXXX")).string();
  if (::mkdtemp(pattern.data()) == nullptr)
    throw system_error("creating a temporary directory in " + parent.string(), errno);
  path_ = pattern;
}

TempDir::TempDir(TempDir&& other) noexcept : path_(std::move(other.path_)) {
  other.path_.clear();
}

TempDir::~TempDir() {
  if (path_.empty()) return;
  try {
    remove_tree(path_);
  } catch (const std::exception& e) {
    log_warning("a temporary directory stays", {{"path", path_.string()}, {"error", e.what()}});
  }
}

fs::path TempDir::release() {
  fs::path path = std::move(path_);
  path_.clear();
  return path;
}

}  // namespace guestagent

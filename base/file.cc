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

#include "base/error.h"
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

// Who only looks holds a shared lock for an instant: a lock counts as another's when it is still held some instants later.
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

std::string read_file_if(const fs::path& path, std::size_t max_bytes, bool trusted) {
  const std::string doing = "reading " + path.string();
  // Not blocking in open(): a named pipe that nobody writes must not hang the agent.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) throw system_error(doing, errno);
  if (trusted) require_trusted(fd.get(), doing, path);
  if (::fcntl(fd.get(), F_SETFL, 0) != 0) throw system_error(doing, errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) throw system_error(doing, errno);
  if (S_ISDIR(info.st_mode))
    throw Error(Code::invalid_argument, doing + ": it is a directory", "name a file, not the directory that it is in");
  const auto expected = info.st_size > 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
  const auto too_large = [&] {
    return Error(Code::resource_exhausted,
                 doing + ": it is larger than " + std::to_string(max_bytes) + " bytes");
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

}  // namespace

std::string read_file(const fs::path& path, std::size_t max_bytes) {
  return read_file_if(path, max_bytes, false);
}

std::string read_trusted_file(const fs::path& path, std::size_t max_bytes) {
  return read_file_if(path, max_bytes, true);
}

void require_trusted(int fd, std::string_view doing, const fs::path& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) throw system_error(doing, errno);
  const uid_t self = ::geteuid();
  if (info.st_uid != 0 && info.st_uid != self) {
    throw Error(Code::permission_denied,
                std::string(doing) + ": it belongs to user " + std::to_string(info.st_uid) + ", who could put anything there",
                "chown root " + path.string());
  }
  const mode_t writers = self == 0 ? S_IWGRP | S_IWOTH : S_IWOTH;
  if (S_ISREG(info.st_mode) && (info.st_mode & writers) != 0) {
    throw Error(Code::permission_denied, std::string(doing) + ": others than its owner can write it", "chmod go-w " + path.string());
  }
}

void write_file_atomic(const fs::path& path, std::string_view content, unsigned mode) {
  const std::string doing = "writing " + path.string();
  const fs::path temporary =
      path.parent_path() / ("." + path.filename().string() + "." + random_hex(6) + ".tmp");
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0600));
  if (!fd) throw system_error(doing, errno);
  try {
    write_all(fd.get(), content, doing);
    if (::fchmod(fd.get(), mode) != 0) throw system_error(doing, errno);
    if (::fsync(fd.get()) != 0) throw system_error(doing, errno);
    if (::close(fd.release()) != 0) throw system_error(doing, errno);
    if (::rename(temporary.c_str(), path.c_str()) != 0) throw system_error(doing, errno);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  fsync_dir(path.parent_path());
}

int fsync_dir_fd(int fd) {
  if (::fsync(fd) == 0) return 0;
  const int err = errno;
  if (err != EINVAL && err != ENOTSUP && err != EOPNOTSUPP && err != ENOSYS) return err;
  static std::once_flag told;
  std::call_once(told, [&] {
    log_warning("a file system cannot make directories durable (fsync): after a power cut, what was written last may be missing there",
                {{"why", std::generic_category().message(err)}});
  });
  return 0;
}

void fsync_dir(const fs::path& dir) {
  const UniqueFd fd(::open(dir.empty() ? "." : dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) throw system_error("making the directory " + dir.string() + " durable", errno);
  if (const int err = fsync_dir_fd(fd.get()); err != 0)
    throw system_error("making the directory " + dir.string() + " durable", err);
}

void fsync_file(const fs::path& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) throw system_error("making " + path.string() + " durable", errno);
  if (::fsync(fd.get()) != 0) throw system_error("making " + path.string() + " durable", errno);
}

void make_dir(const fs::path& dir, unsigned mode) {
  const std::string doing = "creating the directory " + dir.string();
  fs::path clean = dir.lexically_normal();
  if (!clean.has_filename()) clean = clean.parent_path();
  std::error_code failure;
  if (clean.has_parent_path()) {
    fs::create_directories(clean.parent_path(), failure);
    if (failure) throw system_error(doing, failure.value());
  }
  if (::mkdir(clean.c_str(), mode & 0700) != 0 && errno != EEXIST) throw system_error(doing, errno);
  struct stat info {};
  if (::stat(clean.c_str(), &info) != 0) throw system_error(doing, errno);
  if (!S_ISDIR(info.st_mode)) throw system_error(doing, ENOTDIR);
  if ((info.st_mode & 07777) != mode && ::chmod(clean.c_str(), mode) != 0) throw system_error(doing, errno);
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

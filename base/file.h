// Files and directories, with the durability that a journal needs. Everything here throws Error, naming the path.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/unique_fd.h"

namespace guestagent {

namespace fs = std::filesystem;

// The whole file. resource_exhausted when it is larger than `max_bytes`, not_found when there is none,
// invalid_argument for a directory.
std::string read_file(const fs::path& path, std::size_t max_bytes = 1 << 20);

// The same of a file whose word is taken for the administrator's (a configuration: it names programs to run).
// permission_denied unless it belongs to root or to this process's user, and neither group (where this process is
// root's) nor others may write it.
std::string read_trusted_file(const fs::path& path, std::size_t max_bytes = 1 << 20);
// That check alone, of an open file; `doing` begins the error's message.
void require_trusted(int fd, std::string_view doing, const fs::path& path);

// Replaces `path` with `content`: written beside it, fsynced, renamed, directory fsynced. Either the old or the new
// content is there after a crash at any instant. The file never has a mode wider than `mode`.
void write_file_atomic(const fs::path& path, std::string_view content, unsigned mode = 0644);

// Makes what was done to the entries of a directory (create, rename, unlink) durable.
void fsync_dir(const fs::path& dir);
// The same for an open one: 0, or the errno of what went wrong. A file system that has no fsync of directories (EINVAL,
// ENOTSUP, ENOSYS: some of CIFS, FUSE and appliances) is no failure; that is logged once.
int fsync_dir_fd(int fd);
void fsync_file(const fs::path& path);
// Every file and directory below `dir`, then `dir`.
void fsync_tree(const fs::path& dir);

// Creates it with its parents; `mode` is for the last one only and holds also if it existed. What it made is durable,
// and no link that others could have put in its way is followed.
void make_dir(const fs::path& dir, unsigned mode = 0755);

// Removes it and all below it, without following symbolic links or crossing into another mounted file system (also a
// bind mount): that is failed_precondition, after the rest has gone. A `path` that is a mount point itself is left
// whole. What is already gone is no error.
void remove_tree(const fs::path& path);

// Space for a non-root process on the file system of `path` (or of its nearest existing parent), in bytes.
std::uint64_t free_bytes(const fs::path& path);
std::uint64_t volume_bytes(const fs::path& path);
// Sum of the sizes of all regular files below `dir`; files that vanish meanwhile are not counted.
std::uint64_t tree_bytes(const fs::path& dir);

// An advisory lock on a file (flock), held while the object lives and by no other process. The file stays.
class FileLock {
 public:
  // nullopt when somebody else has it. `note` (else "pid N") is the file's content, for whoever is refused.
  static std::optional<FileLock> try_take(const fs::path& path, std::string_view note = {});
  // Whether somebody has it, this process included; false when there is no such file. Asking never makes others believe
  // that it is taken: neither those who ask at the same time nor those who take it.
  static bool is_taken(const fs::path& path);

 private:
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

// A new directory, mode 0700, removed with all it has when the object dies (unless released).
class TempDir {
 public:
  TempDir(const fs::path& parent, std::string_view name_prefix);
  TempDir(TempDir&& other) noexcept;
  TempDir& operator=(TempDir&&) = delete;
  ~TempDir();
  const fs::path& path() const { return path_; }
  fs::path release();

 private:
  fs::path path_;
};

}  // namespace guestagent

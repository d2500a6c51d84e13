// Directories by descriptor, for what root does where others may write: a name that is exchanged for a link leads
// nowhere else.
#pragma once

#include <sys/stat.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "base/unique_fd.h"

namespace guestagent {

// Opens the directory `dir` (`flags`: O_RDONLY to list it or make it durable, O_PATH to only act in it). As root, a
// link on the way is followed only where none but root can have put it; else failed_precondition, naming it. Throws
// not_found, permission_denied, …
UniqueFd open_directory(const fs::path& dir, int flags);

// Opens `relative`, without "..", below the directory `dir`, following no link at all. Empty with errno set when it
// cannot.
UniqueFd open_below(int dir, const fs::path& relative, int flags, unsigned mode = 0);

// A new directory, or one that is there: then, for root, it must be root's own and writable by nobody else, or
// failed_precondition. It has exactly `mode` afterwards. Its parents are made as make_dir makes them.
void make_own_dir(const fs::path& dir, unsigned mode);
// The same look alone, at what need not be there.
void require_own_dir(const fs::path& dir);

// As root: every directory that `path` lies in is root's, and none but root may exchange what is in it (a directory
// such as /tmp, where others may only add, is fine). Throws failed_precondition that names the first which is not.
// Without root's powers nothing is asked.
void require_safe_place(const fs::path& path);

// Sets owner and group of the directory `dir` itself.
void give_dir(const fs::path& dir, uid_t user, gid_t group);

// Removes the directory if there is nothing in it; what is gone, has something in it or is a mount point is no error.
void remove_dir_if_empty(const fs::path& dir);

// A directory that is held open while others may play with its name. Not thread-safe.
class HeldDir {
 public:
  // By open_directory; the last part of the path may be no link.
  explicit HeldDir(const fs::path& dir);
  const fs::path& path() const { return path_; }
  const struct stat& info() const { return info_; }  // as it was when it was opened
  int fd() const { return fd_.get(); }

  // Whether its path still leads to it.
  bool stands() const;
  // Throws failed_precondition when it does not.
  void require_stands() const;

  bool empty() const;
  // Removes everything in it, not itself, as remove_tree does.
  void clear() const;
  // Makes everything in it durable, as fsync_tree does.
  void sync() const;
  // Owner and mode of the directory itself.
  void give(uid_t user, gid_t group, mode_t mode) const;

  // A regular file in it, by its relative path; no link is followed. Throws as read_file does.
  std::string read(const fs::path& relative, std::size_t max_bytes = 1 << 20) const;
  // The same of its first bytes, at most `bytes`.
  std::string read_head(const fs::path& relative, std::size_t bytes) const;
  bool has(const fs::path& relative) const;
  // As write_file_atomic; `owner` has it from the first instant on.
  void write(const std::string& name, std::string_view content, unsigned mode,
             const std::optional<std::pair<uid_t, gid_t>>& owner = std::nullopt) const;

  // One entry below it, deepest last.
  struct Entry {
    fs::path path;          // relative
    struct stat info = {};  // of the entry itself
    int parent = -1;        // the directory that it is in
    std::string name;       // there
  };
  // Calls `visit` for each entry below, a directory before what is in it. Links are shown, never followed.
  void walk(const std::function<void(const Entry&)>& visit) const;

 private:
  fs::path path_;
  UniqueFd fd_;
  struct stat info_ = {};
};

}  // namespace guestagent

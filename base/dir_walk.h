// Walks over trees by directory descriptors: the parts that base/file.h and base/held_dir.h are made of.
#pragma once

#include <sys/stat.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/unique_fd.h"

namespace guestagent {

// Of all, `dir` is an open directory and `shown` its path for messages.

// The name of something in it; nullopt when it is empty.
std::optional<std::string> first_name(int dir, const fs::path& shown);

// All names in it, added to `names`.
void list_names(int dir, const fs::path& shown, std::vector<std::string>& names);

// As remove_tree, of the entry `name` of `dir`; `shown` is the entry's own path.
void remove_entry(int dir, const std::string& name, const fs::path& shown);
// The same of everything in `dir`.
void remove_below(int dir, const fs::path& shown);

// As fsync_tree.
void sync_below(int dir, const fs::path& shown);

// Calls `visit` for each entry below, a directory before what is in it; `relative` begins with `below`. Links are not
// followed.
using WalkVisit = std::function<void(int parent, const char* name, const fs::path& relative, const struct stat& info)>;
void walk_below(int dir, const fs::path& below, const fs::path& shown, const WalkVisit& visit);

// The rest of read_file and of write_file_atomic, once the file or its directory is open.
std::string read_open_file(const UniqueFd& file, const fs::path& shown, std::size_t max_bytes);
void write_file_in(int dir, const fs::path& shown, const std::string& name, std::string_view content, unsigned mode,
                   const std::optional<std::pair<uid_t, gid_t>>& owner = std::nullopt);

}  // namespace guestagent

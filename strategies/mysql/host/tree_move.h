// Moving one entry of a directory, whole, also where rename cannot: across file systems, and for directories on
// overlayfs.
#pragma once

#include <string_view>

#include "base/file.h"

namespace guestagent::mysql {

// Names that move_entry leaves only when it was interrupted; they are never data.
inline constexpr std::string_view kPartialPrefix = ".guestagent-partial-";
inline constexpr std::string_view kTrashPrefix = ".guestagent-trash-";
inline constexpr std::string_view kWastePrefix = ".guestagent-waste-";

// Moves `name` from `from` to `to`. At every instant the whole entry stands under its name in at least one of the two,
// so it can be called again after a crash: gone from `from` and present in `to` is done, and where both have it `to` is
// the whole one. By rename where that works, else by a durable copy (data, holes, owner, mode, times, extended
// attributes). Stale sockets are not copied. Throws Error: not_found when neither has it, failed_precondition for a
// mount point, resource_exhausted, …
void move_entry(const fs::path& from, const fs::path& to, const fs::path& name);

// Removes what interrupted moves left in `dir`.
void remove_move_leftovers(const fs::path& dir);

// A durable copy of a file, link or directory with everything above kept. `to` must not exist.
void copy_tree(const fs::path& from, const fs::path& to);

// Whether something is mounted on `path` itself (a bind mount counts).
bool is_mount_point(const fs::path& path);

// Whether rename can move between the two directories.
bool same_file_system(const fs::path& a, const fs::path& b);

}  // namespace guestagent::mysql

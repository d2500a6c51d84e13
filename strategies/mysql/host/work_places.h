// Where the agent keeps what is of a server's data and not in it: old data, data to come, a first start's files.
#pragma once

#include <string_view>

#include "base/file.h"

namespace guestagent::mysql {

// The directory that holds what the agent keeps of a server's data: beside the data directory, or hidden in it where it
// is a mount point (beside it would be another file system).
fs::path work_dir(const fs::path& data_dir);
inline constexpr std::string_view kHiddenDir = ".guestagent";  // its name inside a data directory

// What copies are received in, there or in mysql.staging_dir, begins so.
inline constexpr std::string_view kStagingPrefix = "staging";

// Makes it, passable for the server's user; failed_precondition for one that is there and is not the agent's own: who
// owns the data directory could have put it there.
void make_work_dir(const fs::path& dir);

// A name for a new directory there: "PREFIX-" and random letters.
fs::path new_work_path(const fs::path& parent, std::string_view prefix);

}  // namespace guestagent::mysql

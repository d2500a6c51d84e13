// Which set of servers this one is of: a random id, made by the first source's agent and passed on with each metadata.
// It is in <state_dir>/set. GTIDs alone do not tell: two MariaDB servers that never met may both be 0-1-17.
#pragma once

#include <string>

#include "base/file.h"

namespace guestagent::mysql {

// "" where there is none. Throws Error.
std::string set_of(const fs::path& state_dir);
// The same; one is made, durably, where there is none.
std::string set_of_source(const fs::path& state_dir);
// From here on it is of that set; "" (of an older agent's metadata): of none that is known.
void keep_set(const fs::path& state_dir, const std::string& id);

}  // namespace guestagent::mysql

// How much memory a program on this host may count on.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/file.h"

namespace guestagent {

// Bytes: what the host has free (MemAvailable), or the limit of this process's control group where that is
// lower. 0 when the host does not tell.
std::uint64_t available_memory();

// The lowest memory limit, in bytes, of a group and all those that it lies in; the greatest number when none
// is set. `groups` is the text of /proc/self/cgroup (cgroups(7)), `mount` where the groups are mounted
// (/sys/fs/cgroup), of either version. A container sees its own group at the mount and a path that is not
// there: what is missing limits nothing.
std::uint64_t group_memory_limit(std::string_view groups, const fs::path& mount);

}  // namespace guestagent

// Names of snapshots, jobs, keys, hosts and tasks: which are good, and new ones.
#pragma once

#include <string>
#include <string_view>

#include "base/clock.h"

namespace guestagent {

// What valid_id() asks, for errors.
constexpr std::string_view kIdRule = "must match [A-Za-z0-9][A-Za-z0-9._-]{0,63}";

// Of a snapshot, a job or a key. Good as the name of a file and as a segment of a URL.
bool valid_id(std::string_view id);

// Of a snapshot or a job, sortable by time: "20260131T235959Z-1f9a3c5e". Throws Error, as the others: random_hex().
std::string new_id(const Clock& clock);
// Of a task: "t1f9a3c5e1f9a3c5e".
std::string new_task_id();
// A random UUID of version 4.
std::string new_uuid();

}  // namespace guestagent

// The fork itself, for base/child.cc.
#pragma once

#include <sys/types.h>

#include "base/child.h"
#include "base/unique_fd.h"

namespace guestagent {

struct SpawnedProcess {
  pid_t pid = -1;
  UniqueFd stdin_end, stdout_end;  // our ends of the pipes asked for
  UniqueFd lines_end;              // its standard error, and its standard output unless piped
};

// Starts the program. When this returns, exec has succeeded and the process leads a group of its own. Throws
// as Child's constructor does. Thread-safe.
SpawnedProcess spawn_process(const ChildSpec& spec);

}  // namespace guestagent

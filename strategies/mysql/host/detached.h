// Processes that must outlive the agent: in a session of their own, not its children, with nothing of it open.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"

namespace guestagent::mysql {

// A process told apart from a later one with the same number.
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t started = 0;  // in clock ticks since the machine's boot
  bool operator==(const ProcessId&) const = default;
};

// The process of that number as it is now; nullopt when there is none (a zombie is none).
std::optional<ProcessId> process_now(pid_t pid);
inline bool alive(const ProcessId& id) {
  return process_now(id.pid) == id;
}

// Asks `id` to end by SIGTERM, never another process that has its number by now. Gone already: no error.
void ask_to_end(const ProcessId& id);

struct DetachedSpec {
  std::vector<std::string> argv;  // argv[0] is searched on PATH unless it has a slash; never holds a secret
  std::vector<std::string> env;
  std::optional<std::pair<uid_t, gid_t>> run_as;
  fs::path output;  // standard output and error, appended; mode 0640
  fs::path record;  // who it is, written before it starts, for whoever looks for it after the agent died; empty: not
                    // recorded
};

// Starts it. A program that cannot be started is an Error here (not_found, permission_denied). It runs nothing before
// its record is on the disk: there is no instant at which it runs and cannot be found.
ProcessId start_detached(const DetachedSpec& spec);

// What start_detached recorded; nullopt when there is no record or that process is gone.
std::optional<ProcessId> read_process_record(const fs::path& record);

// The last lines of a log file, at most `count`, without those that hold none of `words` (empty: all lines), and
// without what stands before the byte `from`. No more than its last 64 KiB are read.
std::vector<std::string> last_lines_of(const fs::path& file, std::size_t count,
                                       const std::vector<std::string>& words = {}, std::uint64_t from = 0);

}  // namespace guestagent::mysql

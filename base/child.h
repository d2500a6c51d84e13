// A child process whose end is known: its exit status is part of its output, its standard error is drained while it
// runs, and nothing of it outlives the object.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace guestagent {

struct ChildSpec {
  std::vector<std::string> argv = {};  // argv[0] is searched on PATH unless it has a slash; never holds a secret
  std::vector<std::string> env = {};   // the whole environment, "NAME=value"; empty means PATH and LC_ALL=C only
  std::string working_dir = {};        // empty: inherited
  bool pipe_stdin = false;             // else /dev/null
  bool pipe_stdout = false;            // else drained into the log of lines, as standard error is
  // Run as this user and group (the server's), when the agent is root.
  std::optional<std::pair<uid_t, gid_t>> run_as = {};
  // Each line of standard error (and of standard output unless piped), cut at 64 KiB, called on the draining thread.
  // What it throws is thrown by wait(), and no further line is given to it.
  std::function<void(std::string_view)> on_line = {};
};

// One running or ended child, leader of its own process group, killed by the kernel when the agent dies. Not
// thread-safe, but kill_group may be called from any thread.
class Child {
 public:
  // Throws Error: not_found when there is no such program (the hint names argv[0] and PATH), permission_denied, …
  explicit Child(ChildSpec spec);
  ~Child();  // kills the whole process group (SIGKILL) and waits for it
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const;
  // Ends of the pipes; -1 unless asked for. The child's standard input is closed with close_stdin().
  int stdin_fd() const;
  int stdout_fd() const;
  void close_stdin();

  struct Exit {
    int status = 0;  // exit status, or -1 when a signal ended it
    int signal = 0;  // 0 unless a signal ended it
    bool ok() const { return status == 0 && signal == 0; }
    std::string describe() const;  // "exit status 1", "killed by signal 9 (Killed)"
  };
  // Waits for the end of the process and of its standard error; then what is left of its group is killed. Who holds
  // standard error open after the process, silent for a second, is not waited for. On `stop` the group is killed and
  // cancelled is thrown.
  Exit wait(std::stop_token stop = {});
  std::optional<Exit> try_wait();

  // To the whole group.
  void kill_group(int signal);

  // The last lines of its standard error (at most 20 of at most 500 characters each), oldest first.
  std::vector<std::string> last_lines() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Runs to the end; the lines it printed on standard output (at most `max_bytes`). Throws Error with the last lines of
// standard error when it fails (Code::internal) or outlives `timeout` (deadline_exceeded); resource_exhausted when it
// prints more.
std::string run_and_read(ChildSpec spec, Millis timeout, std::size_t max_bytes = 1 << 20, std::stop_token stop = {});

// The full path of a program on PATH and in the usual sbin directories, or nullopt.
std::optional<std::string> find_program(std::string_view name);

}  // namespace guestagent

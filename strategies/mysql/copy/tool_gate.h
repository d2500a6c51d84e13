// The one door by which a backup tool reaches its server: a socket beside the copy's other files, behind which the
// agent's own server answers, and no other.
//
// What goes through is passed on as it is, but:
//  - the server's greeting offers neither encryption nor compression: the gate must read what the tool says;
//  - the number of every session is known, and on record before the session can say anything, so that what a dead
//    tool leaves waiting in the server can be ended, and nothing else;
//  - before the first statement of a session the limits that the server sets for everybody are lifted: the tools rely
//    on whole answers, and one that was cut has ended them by a segmentation fault;
//  - before a statement that locks, the server is told how long that may wait. It then gives up by itself, whatever
//    has become of the tool and of the agent: a server does not notice that a client is gone whose lock it waits for;
//  - FLUSH TABLES WITH READ LOCK, behind which all writers stand while it waits, is tried for `freeze` at a time and,
//    with as long a pause for the writers in between, again until `lock_wait` is over. The tool knows nothing of that.
//
// Into a session that is encrypted or compressed all the same nobody can look: of it only the number is known, and a
// warning says so.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/unique_fd.h"

namespace guestagent::mysql {

// What a statement of a tool does to others.
enum class LockKind {
  none,
  polite,  // its waiting holds up no writer, or only those of DDL and of tables without transactions
  freeze,  // behind it all writers stand
};
LockKind lock_kind(std::string_view statement);

struct GateLimits {
  Millis lock_wait{60000}, freeze{3000};
};

// All methods are thread-safe.
class ToolGate {
 public:
  // Listens in `dir` (mode 0700), or in a directory of its own where that path is too long for a socket; `server` is
  // the server's socket. `clock` outlives it. Throws Error.
  ToolGate(const fs::path& dir, fs::path server, GateLimits limits, Clock& clock);
  ~ToolGate();  // hangs up on both sides
  ToolGate(const ToolGate&) = delete;
  ToolGate& operator=(const ToolGate&) = delete;

  const fs::path& socket() const { return socket_; }
  // The server's numbers of all sessions so far.
  std::vector<std::uint64_t> sessions() const;

  // A statement that the server has not answered.
  struct Unanswered {
    std::string statement;  // its beginning
    SteadyTime since;
  };
  std::optional<Unanswered> unanswered() const;  // the oldest
  // Since when the tool has the lock behind which all writers stand.
  std::optional<SteadyTime> frozen_since() const;

 private:
  class Session;
  void accept_sessions(const std::stop_token& stop);
  void opened(std::uint64_t id);

  const fs::path record_, server_;
  const GateLimits limits_;
  Clock& clock_;
  std::optional<TempDir> own_dir_;
  fs::path socket_;
  UniqueFd listener_;

  mutable std::mutex mutex_;
  std::vector<std::uint64_t> sessions_;                            // guarded by mutex_
  std::vector<std::pair<const Session*, Unanswered>> unanswered_;  // guarded by mutex_
  std::optional<std::pair<const Session*, SteadyTime>> frozen_;    // guarded by mutex_
  std::vector<std::jthread> served_;                               // of the accepting thread alone until that has ended
  std::jthread acceptor_;
};

// What a gate in `dir` put on record, for who comes after a crash.
struct GateRecord {
  std::vector<std::uint64_t> sessions;
  fs::path own_dir;    // to be removed; empty: none
  WallTime written{};  // when the last session was opened
};
std::optional<GateRecord> read_gate_record(const fs::path& dir);

}  // namespace guestagent::mysql

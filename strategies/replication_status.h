// What a datastore says of itself and of the source that it follows. All text may hold any bytes but where a field says
// otherwise: who shows it makes UTF-8 of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/enum_text.h"
#include "strategies/own_json.h"

namespace guestagent {

enum class ReplicationRole { source, replica, standalone };
enum class ReplicationVerdict { source, healthy, lagging, broken, diverged, standalone, restoring, unreachable };

// Of what replicates: it works, it tries to, it does not.
enum class ThreadState { stopped, connecting, running };

// Their names in the RPC contract and in metrics.
inline constexpr EnumTexts<ReplicationRole, 3> kReplicationRoles = {{"source", "replica", "standalone"}};
inline constexpr EnumTexts<ReplicationVerdict, 8> kReplicationVerdicts = {
    {"source", "healthy", "lagging", "broken", "diverged", "standalone", "restoring", "unreachable"}};
inline constexpr EnumTexts<ThreadState, 3> kThreadStates = {{"stopped", "connecting", "running"}};
inline std::string to_string(ReplicationRole role) {
  return std::string(kReplicationRoles.text(role));
}
inline std::string to_string(ReplicationVerdict verdict) {
  return std::string(kReplicationVerdicts.text(verdict));
}
inline std::string to_string(ThreadState state) {
  return std::string(kThreadStates.text(state));
}

struct ReplicationStatus {
  // One of those that replicate.
  struct Thread {
    std::string name;  // [a-z_]+: a key of the status and a part of a metric's name
    ThreadState state = ThreadState::stopped;
    bool applies = false;  // what was received; else it receives
    bool running() const { return state == ThreadState::running; }
  };
  // What the engine counts of a replica: a member of the status, and the metric guestagent_replication_NAME.
  struct Number {
    std::string name;  // [a-z_]+
    std::string help;  // of the metric: a sentence
    std::uint64_t value = 0;
  };
  struct Source {
    std::string host;
    std::uint16_t port = 0;
    OwnJson own = {};  // what the engine tells of it beside that: members of `source`
  };

  std::optional<ReplicationRole> role;  // absent when nobody can tell
  ReplicationVerdict verdict = ReplicationVerdict::unreachable;
  std::vector<std::string> reasons;  // in words, for verdicts that are not good

  // Absent or empty of a server that does not answer.
  OwnJson own;  // by which its engine knows it: members of the status
  std::optional<bool> read_only;
  std::optional<std::uint64_t> replicas;  // that are connected to it, where it follows nobody

  // Of a replica, absent or empty else.
  std::optional<Source> source;
  std::vector<Thread> threads;        // in the order in which they are shown
  std::optional<double> lag_seconds;  // whole milliseconds; absent rather than wrong
  std::optional<std::uint64_t> lag_transactions;
  std::string errant;  // transactions of its own that the source has not, in the server's own spelling
  std::vector<Number> numbers;

  std::optional<OwnJson> received, applied;  // positions, of a replica
  std::optional<OwnJson> source_position;    // the source's, or its own on a server that follows nobody

  std::string errors_json = "[]";  // what the engine tells of its errors, carried unread: a JSON array
};

}  // namespace guestagent

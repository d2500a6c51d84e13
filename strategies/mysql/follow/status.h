// How the replication status is made: facts are collected, and the status with its verdict is derived from them by a
// function that asks nobody.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "config/settings.h"
#include "strategies/mysql/server/server_client.h"
#include "strategies/mysql/source/source_accounts.h"
#include "strategies/replication_status.h"

namespace guestagent::mysql {

struct StatusFacts {
  bool reachable = false;
  std::string unreachable_because;
  bool restoring = false;  // the server's data is being exchanged
  std::uint32_t server_id = 0;
  bool read_only = false;
  bool wants_read_only = false;  // it was attached so
  Position own;                  // of its own binary log; empty when that is off
  std::size_t replicas = 0;      // connected to it
  std::size_t accounts = 0;      // replication accounts that the agent made here

  std::vector<ReplicaStatus> channels;
  std::string errant;  // what it wrote itself since it was attached, as a GTID set

  // Of the first channel:
  std::optional<Position> source_now;     // where the source was when it was asked
  std::string not_asked_because;          // why it was not, when that is worth telling
  std::optional<double> reached_after_s;  // how long after that this server had applied it, if it had soon
  double waited_s = 0;                    // how long that was waited for
  bool received_all = false;              // at the end of that time everything up to source_now had been received
  std::optional<std::uint64_t> behind;    // transactions up to source_now that are not applied
};

ReplicationStatus judge(const StatusFacts& facts, Millis lag_limit);

// Asks the server and, for a replica that the agent attached, its source; takes at most some seconds. A
// server that does not answer is a fact. Throws only for what is wrong with the agent itself (its
// credentials' file, its state).
StatusFacts collect_status(const MysqlSettings& settings, const fs::path& state_dir, SourceAccounts& accounts,
                           Clock& clock);

}  // namespace guestagent::mysql

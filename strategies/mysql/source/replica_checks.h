// Options of a server that break the replica made of it: it starts with them and follows at first. Named before
// anything is touched.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "strategies/datastore.h"

namespace guestagent::mysql {

class ServerClient;

// As the server has them; empty where it is not set or not known to this server.
struct ReplicaHazards {
  std::string init_replica;                   // init_slave, init_replica: statements at each start of the SQL thread
  std::string init_file;                      // its path
  std::optional<std::string> init_file_text;  // nullopt: this process cannot read it
  std::string row_triggers;                   // slave_run_triggers_for_rbr
  bool skips_grants = false;                  // it was started with skip_grant_tables
};

ReplicaHazards read_replica_hazards(ServerClient& client);
// One failed check or warning for each that is there; nothing where all is well.
std::vector<Check> check_replica_hazards(const ReplicaHazards& hazards);

// The first statement of `sql` that may change data and would stand in the binary log; empty where there is none. A
// session's variables, reading, and what follows SET sql_log_bin=0 do not count.
std::string first_logged_change(std::string_view sql);

}  // namespace guestagent::mysql

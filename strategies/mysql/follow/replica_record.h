// What the agent remembers of the source that it attached this server to: <state_dir>/replica.json, mode
// 0600, with the replication password (the server keeps the same in a file of its own), so that the status
// can ask the source where it is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/file.h"
#include "base/secret.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

struct ReplicaRecord {
  std::string host;
  std::uint16_t port = 0;
  std::string user;
  Secret password;
  bool tls = false;
  // What this server had written itself when it was attached, as a GTID set: more of that later is errant.
  std::string own_gtid;
};

// Atomic. Throws Error.
void save_replica_record(const fs::path& state_dir, const ReplicaRecord& record);
// nullopt when there is none. Throws Error(data_loss) for a damaged one.
std::optional<ReplicaRecord> load_replica_record(const fs::path& state_dir);
void remove_replica_record(const fs::path& state_dir);

// To the source, with the replication account: quick to give up. `ca_file` may be empty: then TLS only
// encrypts.
ConnectTarget source_target(const ReplicaRecord& record, const fs::path& ca_file, Millis connect_timeout);

}  // namespace guestagent::mysql

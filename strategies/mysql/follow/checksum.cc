#include "strategies/mysql/follow/checksum.h"

#include "strategies/mysql/follow/positions.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {
namespace {

std::vector<TableName> choose(ServerClient& client, const std::vector<std::string>& wanted) {
  std::vector<TableName> all = client.user_tables();
  if (wanted.empty()) return all;
  std::vector<TableName> out;
  for (const std::string& name : wanted) {
    bool found = false;
    for (const TableName& table : all) {
      if (table.schema + "." + table.name != name) continue;
      out.push_back(table);
      found = true;
    }
    if (!found) {
      throw Error(Code::not_found, "choosing tables: \"" + name.substr(0, 130) + "\": there is no such table here",
                  "tables are named db.table");
    }
  }
  return out;
}

void require_none_in_memory(ServerClient& client) {
  for (const TableName& table : client.user_tables(false)) {
    if (table.engine != "MEMORY") continue;
    throw Error(Code::permission_denied,
                "reading tables: " + table.schema + "." + table.name +
                    ": the first reading of a MEMORY table is logged, on a replica as a transaction of its own, and "
                    "the agent's account "
                    "may not keep it out of the binary log",
                "grant the account BINLOG ADMIN (MariaDB) or SYSTEM_VARIABLES_ADMIN (MySQL)");
  }
}

}  // namespace

std::vector<TableChecksum> checksum_tables(const MysqlSettings& settings, const std::vector<std::string>& tables,
                                           std::optional<std::uint64_t> sample, const std::optional<Position>& at,
                                           Position& read_at, JobContext& job, Clock& clock) {
  ConnectTarget target = local_target(settings);
  // One digest is one answer, which may take hours; it is cancelled from another connection.
  target.read_timeout = std::chrono::hours(24 * 7);
  ServerClient client(std::move(target));
  if (at) {
    try {
      wait_for_position(client, *at, settings.catch_up_timeout, job, clock);
    } catch (const Error& e) {
      // As this method always said it, of whatever reason.
      if (e.code() != Code::failed_precondition) throw;
      throw Error(Code::deadline_exceeded, e.what(), e.hint());
    }
  }
  job.phase("read tables");
  if (!client.read_quietly()) require_none_in_memory(client);
  read_at = client.begin_consistent_read();
  const std::vector<TableName> chosen = choose(client, tables);
  std::uint64_t all = 0, done = 0;
  for (const TableName& table : chosen) all += table.bytes;
  std::vector<TableChecksum> out;
  for (const TableName& table : chosen) {
    job.check_cancelled();
    const TableDigest digest = client.digest_table(table.schema, table.name, sample, job.stop_token());
    out.push_back({table.schema + "." + table.name, digest.rows, digest.digest});
    done += table.bytes;
    job.progress(done, all);
  }
  client.end_consistent_read();
  return out;
}

}  // namespace guestagent::mysql

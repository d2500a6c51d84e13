// The source's side of a snapshot: what is checked, what is made for it on the server, and the stream.
#pragma once

#include <functional>
#include <memory>

#include "base/clock.h"
#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/server/server_client.h"
#include "strategies/mysql/source/source_accounts.h"

namespace guestagent::mysql {

class SnapshotSource {
 public:
  // `turn_on_binlog` writes the server's options and restarts it; used only with mysql.allow_restart, may be
  // empty. Everything outlives it and the streams that it opens.
  SnapshotSource(const MysqlSettings& settings, fs::path state_dir, SourceAccounts& accounts,
                 std::function<void(JobContext&)> turn_on_binlog, Clock& clock);

  // Datastore::plan_snapshot and open_snapshot.
  Plan plan(const SnapshotRequest& request);
  std::unique_ptr<SnapshotStream> open(const SnapshotRequest& request, JobContext& job);

  // By the journal of a job that has failed or died: its tool has ended; the tool's files, the account and the
  // lease go. Answers in words. Throws LeftBehind when something of that could not be undone now.
  std::string recover(JobContext& job);

 private:
  std::string remove_work(const Journal& journal) const;

  const MysqlSettings& settings_;
  fs::path state_dir_;
  SourceAccounts& accounts_;
  std::function<void(JobContext&)> turn_on_binlog_;
  Clock& clock_;
};

// Bytes of data that a copy of this server reads, from its files: without binary, relay and redo logs. 0
// where they cannot be read.
std::uint64_t copied_bytes(const ServerIdentity& server);

// Entries of the data directory that lead out of it (symbolic links, .isl files), relative to it.
std::vector<std::string> links_out(const fs::path& data_dir);

// Whether the replication account is to require TLS: mysql.require_tls, `auto` meaning what the server can
// do.
bool account_requires_tls(const MysqlSettings& settings, const ServerIdentity& server);

}  // namespace guestagent::mysql

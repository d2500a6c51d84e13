// The replication accounts that this agent made on its server, and the lease on the binary logs that they
// hold.
//
// Each account has a file <state_dir>/accounts/<user>.json (no password in it), written before the account is
// made; nothing else is ever dropped. While at least one of them holds the lease the server purges no binary
// log: <state_dir>/lease.json has the settings as they were, written before they are changed, and put back
// when the last one ends. All of it can be repeated after a crash at any instant. Thread-safe between
// processes by a lock file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/job_context.h"
#include "config/settings.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

struct SourceAccount {
  std::string user, host, snapshot_id;
  std::string created_at;
  std::string last_seen;  // when a replica was last connected with it; empty: never
  std::string mark;       // random, of the job that made it: a name may come again
  bool lease = true;
};

// "repl_" and what makes it this snapshot's: at most `max` bytes, only letters, digits and '_'.
std::string replication_user_name(const std::string& snapshot_id, std::size_t max);

class SourceAccounts {
 public:
  // `settings` and `clock` outlive it.
  SourceAccounts(const MysqlSettings& settings, fs::path state_dir, Clock& clock);

  // already_exists when the account's name for that snapshot is taken, by an earlier snapshot's or by
  // somebody's; else nothing.
  std::optional<Error> name_taken(ServerClient& client, const std::string& snapshot_id) const;

  // Makes the account and takes the lease; journaled, so that undo_journal() undoes it. already_exists as
  // above.
  SourceAccount make(ServerClient& client, const std::string& snapshot_id, const Secret& password, bool require_tls,
                     JobContext& job);

  // Drops it and ends its lease; journaled, so that finish_release() ends what a crash left half done. not_found for
  // one that is not ours, and then nothing is journaled.
  void release(ServerClient& client, const std::string& user, JobContext& job);
  // After a crash in release(). Answers in words.
  std::string finish_release(ServerClient& client, JobContext& job);

  // All of them, whoever uses them; journaled, so that finish_release_all() ends what a crash left half done. Answers
  // their names.
  std::vector<std::string> release_all(ServerClient& client, JobContext& job);
  std::string finish_release_all(ServerClient& client, JobContext& job);

  // What a job that died or failed made, by its journal; nothing to undo is no error. The lease ends even where the
  // account cannot be dropped. Answers in words, "" when there was nothing.
  std::string undo_journal(ServerClient& client, JobContext& job);

  // On a server that has just ceased to be a replica, or to be one of that source: drops, without a trace in the binary
  // log, the replication accounts that a copy or replication brought from its source, where every replica of that
  // source knows a password. They are those with an agent's mark, and `followed_by`, which this server itself used;
  // never one that this agent made here, nor one that a replica is connected with now, nor `keep`. Answers their names.
  std::vector<std::string> drop_inherited(ServerClient& client, const std::string& followed_by,
                                          const std::string& keep = "") const;

  // To be called now and then: notes which accounts have a replica connected, ends leases that passed
  // mysql.lease_limit without one, and takes the lease again where a restart of the server lost it. Answers
  // what it did.
  std::vector<std::string> tend(ServerClient& client);

  std::vector<SourceAccount> list() const;
  // Whether there is anything that tend() should look after; asks no server.
  bool any() const;

 private:
  fs::path file_of(const std::string& user) const;
  void save(const SourceAccount& account) const;
  std::optional<SourceAccount> load(const fs::path& file) const;
  FileLock lock() const;
  void hold_lease(ServerClient& client) const;
  void end_lease_if_last(ServerClient& client) const;
  void end(ServerClient& client, SourceAccount account, Journal& journal) const;

  const MysqlSettings& settings_;
  fs::path dir_;
  fs::path lease_file_;
  Clock& clock_;
};

}  // namespace guestagent::mysql

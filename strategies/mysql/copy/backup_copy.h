// The contract of every way to take the copy: a stream of bytes, and where in the source's history it stands.
#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include "base/clock.h"
#include "base/job_context.h"
#include "config/settings.h"
#include "strategies/mysql/copy/backup_tools.h"
#include "strategies/mysql/server/server_client.h"
#include "stream/byte_stream.h"

namespace guestagent::mysql {

struct BackupSpec {
  BackupTool tool;
  ServerIdentity server;
  ConnectTarget target;  // the agent's own account
  fs::path work_dir;     // empty, mode 0700, removed by the caller when the copy is gone
  std::stop_token stop;
  std::function<void(std::string_view)> warn;  // called on any thread
  JobContext* job = nullptr;                   // outlives the copy; its journal is only for the starting of it
};

// Dropping it before the end kills the tool, waits for it and ends what it left on the server.
class BackupCopy : public ByteSource {
 public:
  // read() answers 0 only when the tool ended with status 0 and said that it completed, and what it wrote of
  // itself is whole and agrees with what it said.

  // REQUIRES of these: read() answered 0. A position may be `restored`: the server on the copy tells it.
  virtual Position position() const = 0;
  virtual std::string tool() const = 0;    // "mariadb-backup 10.11.19"
  virtual std::string format() const = 0;  // "xbstream", "tar"
};

// Starts to copy by the tool of `spec`. `settings` and `clock` outlive the copy. Throws Error.
std::unique_ptr<BackupCopy> start_copy(const MysqlSettings& settings, BackupSpec spec, Clock& clock);

// What start_copy chooses from.
std::unique_ptr<BackupCopy> start_mariadb_backup(const MysqlSettings& settings, BackupSpec spec, Clock& clock);
std::unique_ptr<BackupCopy> start_xtrabackup(const MysqlSettings& settings, BackupSpec spec, Clock& clock);
std::unique_ptr<BackupCopy> start_clone(const MysqlSettings& settings, BackupSpec spec, Clock& clock);

}  // namespace guestagent::mysql

// A second server made from a first one's snapshot, by the parts of the strategy under test and the stock
// tools for the rest.
#pragma once

#include <atomic>
#include <fstream>
#include <thread>
#include <vector>

#include "strategies/mysql/source/snapshot_source.h"
#include "tests/support/fake_job.h"
#include "tests/support/mariadb_server.h"

namespace guestagent::test {

// What an agent beside the server has: its settings, state and accounts.
struct SourceParts {
  explicit SourceParts(const MariadbServer& server, MysqlSettings given)
      : settings(std::move(given)),
        state(server.dir() / "state"),
        accounts(settings, state, system_clock()),
        source(settings, state, accounts, {}, system_clock()) {}
  explicit SourceParts(const MariadbServer& server) : SourceParts(server, server.settings()) {}

  MysqlSettings settings;
  fs::path state;
  mysql::SourceAccounts accounts;
  mysql::SnapshotSource source;
};

inline std::uint64_t drain_to_file(ByteSource& stream, const fs::path& file) {
  std::ofstream out(file, std::ios::binary);
  std::vector<std::byte> buffer(1 << 20);
  std::uint64_t total = 0;
  while (const std::size_t n = stream.read(buffer)) {
    out.write(reinterpret_cast<const char*>(buffer.data()), static_cast<std::streamsize>(n));
    total += n;
  }
  return total;
}

inline SnapshotMetadata metadata_of(const SourceFacts& facts, const std::string& id) {
  SnapshotMetadata out;
  out.master_host = facts.master_host;
  out.master_port = facts.master_port;
  out.datastore = "mysql";
  out.datastore_version = facts.datastore_version;
  out.data_position = facts.data_position;
  out.lease_position = facts.lease_position;
  out.replication_user = facts.replication_user;
  out.replication_password = facts.replication_password;
  out.require_tls = facts.require_tls;
  out.id = id;
  out.format = facts.format;
  return out;
}

// Extracts and prepares `stream_file` as the data of `target`, which is not running, and starts it.
inline void run_on_copy(MariadbServer& target, const fs::path& stream_file) {
  remove_tree(target.data_dir());
  make_dir(target.data_dir(), 0700);
  const auto shell = [](const std::string& line) {
    ChildSpec spec;
    spec.argv = {"/bin/sh", "-c", line};
    run_and_read(std::move(spec), Seconds(300));
  };
  shell("mbstream -x -C '" + target.data_dir().string() + "' < '" + stream_file.string() + "'");
  shell("mariadb-backup --prepare --target-dir='" + target.data_dir().string() + "' 2>&1");
  target.start();
}

// Writes to `database`.t of a server until it is told to stop.
class Writer {
 public:
  explicit Writer(const MariadbServer& server)
      : thread_([this, &server] {
          while (!stop_)
            server.sql(
                "USE d; INSERT INTO t(b) VALUES ('w'); INSERT INTO t(b) SELECT REPEAT('y', 90) FROM "
                "seq_1_to_100");
        }) {}
  ~Writer() { stop(); }
  void stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

inline void make_table(const MariadbServer& server, unsigned rows) {
  server.sql(
      "CREATE DATABASE d; USE d; CREATE TABLE t(a INT AUTO_INCREMENT PRIMARY KEY, b VARCHAR(100)) "
      "ENGINE=InnoDB; "
      "INSERT INTO t(b) SELECT REPEAT('x', 90) FROM seq_1_to_" +
      std::to_string(rows));
}

// A source and a copy of it that runs, not yet following.
struct SourceAndCopy {
  explicit SourceAndCopy(unsigned rows = 1000, MariadbOptions source_options = {}, MariadbOptions copy_options = {}) {
    source = std::make_unique<MariadbServer>(std::move(source_options));
    copy_options.server_id = 2;
    copy_options.start = false;
    copy = std::make_unique<MariadbServer>(std::move(copy_options));
    make_table(*source, rows);
    parts = std::make_unique<SourceParts>(*source);
    FakeJob job(source->dir() / "journal");
    auto stream = parts->source.open({"snap"}, job);
    drain_to_file(*stream, source->dir() / "snap.xb");
    attach.snapshot = metadata_of(stream->facts(), "snap");
    run_on_copy(*copy, source->dir() / "snap.xb");
  }

  std::unique_ptr<MariadbServer> source, copy;
  std::unique_ptr<SourceParts> parts;
  AttachRequest attach;
};

}  // namespace guestagent::test

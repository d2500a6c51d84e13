// The MySQL family as a datastore: joins what the files of this folder do to the two contracts.
#pragma once

#include "base/clock.h"
#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/follow/replica_stop.h"
#include "strategies/mysql/host/server_control.h"
#include "strategies/mysql/host/server_identity.h"
#include "strategies/mysql/install/receive.h"
#include "strategies/mysql/server/position.h"
#include "strategies/mysql/source/snapshot_source.h"
#include "strategies/mysql/source/source_accounts.h"

namespace guestagent::mysql {

class MysqlDatastore : public Datastore, public DatastoreUpkeep {
 public:
  // `clock` outlives it. Connects to nothing.
  MysqlDatastore(const Settings& settings, Clock& clock);

  OwnJson read_position(const JsonReader& in) const override { return own(mysql::read_position(in)); }
  std::vector<std::string_view> attach_members() const override { return mysql::attach_members(); }
  OwnJson read_attach_members(const JsonReader& slave_config) const override {
    return mysql::read_attach_members(slave_config);
  }
  ServerDescription describe() override;
  Plan plan_snapshot(const SnapshotRequest& request) override;
  std::unique_ptr<SnapshotStream> open_snapshot(const SnapshotRequest& request, JobContext& job) override;
  Plan plan_attach(const AttachRequest& request, const std::string& server_json) override;
  std::uint64_t receive(PieceSource& stream, const fs::path& dir, JobContext& job) override;
  std::unique_ptr<Installation> install(const AttachRequest& request, const fs::path& dir, JobContext& job) override;
  AttachOutcome start_replicating(const AttachRequest& request, JobContext& job) override;
  Plan plan_stop(const DetachRequest& request) override { return mysql::plan_stop(status(), request); }
  DetachOutcome stop_replicating(const DetachRequest& request, JobContext& job) override;

  ReplicationStatus status() override;
  void tend() override;
  bool tidy_due() override;
  void tidy() override;
  bool has_part(const fs::path& dir) override { return is_staged(dir); }
  void keep_staged(const fs::path& dir, const PieceSource::Kind& stream, JobContext& job) override;
  std::uint64_t discard_staged(const PieceSource::Kind& stream, JobContext& job) override;
  fs::path make_staging(const PieceSource::Kind& stream, JobContext& job) override;
  std::string recover(Undertaking what, JobContext& job) override;
  Plan plan_release(const std::string& replication_user) override;
  void release_source(const std::string& replication_user, JobContext& job) override;
  std::vector<TableChecksum> checksum_tables(const std::vector<std::string>& tables,
                                             std::optional<std::uint64_t> sample, const std::optional<OwnJson>& at,
                                             OwnJson& read_at, JobContext& job) override;

 private:
  std::uint32_t source_server_id(const SnapshotMetadata& snapshot);
  void forget_former_source(ServerClient& client, const std::string& user, const std::string& keep, JobContext& job);
  RoleChange detaching(JobContext& job);

  const MysqlSettings settings_;
  const Millis keep_partial_;
  const fs::path state_dir_;
  Clock& clock_;
  const std::unique_ptr<ServerControl> control_;
  SourceAccounts accounts_;
  SnapshotSource source_;
};

}  // namespace guestagent::mysql

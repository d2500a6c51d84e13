// The MySQL family's part of strategies/roles.h.
#pragma once

#include "base/clock.h"
#include "config/settings.h"
#include "strategies/mysql/source/source_accounts.h"
#include "strategies/roles.h"

namespace guestagent::mysql {

class MysqlRoles : public DatastoreRoles {
 public:
  // `clock` outlives it. Connects to nothing.
  MysqlRoles(const Settings& settings, Clock& clock);

  Plan plan_read_only(const ReadOnlyRequest& request) override;
  ReadOnlyOutcome set_read_only(const ReadOnlyRequest& request, JobContext& job) override;
  ReplicationPlace place() override;
  void wait_for(const OwnJson& position, Millis timeout, JobContext& job) override;
  Plan plan_open_source() override;
  SourceFacts open_source(const std::string& id, JobContext& job) override;
  Plan plan_demote(bool force) override;
  std::vector<std::string> demote_source(bool force, JobContext& job) override;

 private:
  const MysqlSettings settings_;
  const fs::path state_dir_;
  Clock& clock_;
  SourceAccounts accounts_;
};

}  // namespace guestagent::mysql

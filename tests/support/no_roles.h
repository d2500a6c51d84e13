// For a datastore of which no test asks for a role.
#pragma once

#include "base/error.h"
#include "strategies/roles.h"

namespace guestagent::test {

class NoRoles : public DatastoreRoles {
 public:
  Plan plan_read_only(const ReadOnlyRequest&) override { return {}; }
  ReadOnlyOutcome set_read_only(const ReadOnlyRequest&, JobContext&) override { none(); }
  ReplicationPlace place() override { none(); }
  void wait_for(const OwnJson&, Millis, JobContext&) override { none(); }
  Plan plan_open_source() override { return {}; }
  SourceFacts open_source(const std::string&, JobContext&) override { none(); }
  Plan plan_demote(bool) override { return {}; }
  std::vector<std::string> demote_source(bool, JobContext&) override { none(); }

 private:
  [[noreturn]] static void none() { throw Error(Code::unavailable, "there is no server here"); }
};

}  // namespace guestagent::test

// Removes what tasks leave behind: snapshots, replication accounts, hosts; and learns what became of jobs on
// agents that fell silent.
#pragma once

#include <functional>
#include <stop_token>

#include "controller/provision.h"
#include "controller/remote_job.h"
#include "controller/state.h"

namespace guestagent::controller {

// Thread-safe. Two that work on the same clean-up do it twice, which does no harm.
class Cleaner {
 public:
  // All outlive it; the settings say how patient it is with silent and busy agents.
  Cleaner(State& state, Agents& agents, Provisioner& provisioner, const AgentAccessSettings& settings, Clock& clock)
      : state_(state), provisioner_(provisioner), runner_(agents, settings, clock) {}

  // Tries once; true when it is done (and no longer in the state). What went wrong is recorded with it.
  // Throws cancelled on `stop`. While `hurry` answers true, a silent or busy agent is not waited for.
  bool attempt(
      const Cleanup& cleanup, std::stop_token stop, const std::function<bool()>& hurry = [] { return false; });

 private:
  bool run_job(const Cleanup& cleanup, const std::string& method, const std::string& key, std::stop_token stop,
               const std::function<bool()>& hurry);
  bool find_out(const Cleanup& cleanup, std::stop_token stop);

  State& state_;
  Provisioner& provisioner_;
  JobRunner runner_;
};

// What a snapshot's metadata must tell the controller. Throws internal when it does not.
struct SnapshotFacts {
  std::string href, account;
  std::uint64_t dataset_size = 0;  // GiB
};
SnapshotFacts read_snapshot(const std::string& metadata);
// Throws invalid_argument where master.host is no host: it goes on to other agents, who connect to it.
void check_master(const std::string& metadata);

}  // namespace guestagent::controller

// Where the hosts of new replicas come from: a pool of spare ones, or a command of the user's.
#pragma once

#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "config/controller_settings.h"
#include "controller/model.h"

namespace guestagent::controller {

// `count` of the spare hosts that have all that is wanted, those with the least unneeded volume first. Throws
// failed_precondition that names the property which none has, or how many fit.
std::vector<std::string> pick_hosts(const std::vector<Instance>& spare, const HostTemplate& wanted, int count);

// Thread-safe.
class Provisioner {
 public:
  virtual ~Provisioner() = default;
  virtual bool makes_hosts() const = 0;
  // The address of the new host's agent. `again`: an earlier try may have left something. Throws Error,
  // cancelled on `stop`.
  virtual std::string make(const Instance& instance, bool again, std::stop_token stop) = 0;
  // Removes what make() made or began; nothing there is a success. Throws Error.
  virtual void remove(const Instance& instance, std::stop_token stop) = 0;
};

// The pool makes no hosts: its make() is never called.
std::unique_ptr<Provisioner> make_provisioner(const ProvisionerSettings& settings, const AgentAccessSettings& agents);

}  // namespace guestagent::controller

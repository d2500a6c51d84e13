// Which hosts of the pool are good for a new replica now: asked before a snapshot is taken for them.
#pragma once

#include <map>
#include <set>
#include <stop_token>
#include <string>

#include "controller/agent_client.h"
#include "controller/live.h"
#include "controller/state.h"

namespace guestagent::controller {

// For one request. Not thread-safe.
class GoodHosts {
 public:
  // All outlive it. `overwrite`: hosts with data of their own are good as well.
  GoodHosts(State& state, Agents& agents, const Live& live, std::string source_id, bool overwrite)
      : state_(state), agents_(agents), live_(live), source_id_(std::move(source_id)), overwrite_(overwrite) {}

  // Finds `count` that fit (pick_hosts) among the spare ones, but for `not_these`, and asks each of them.
  // Those that did not answer when they were last looked at are asked where too few others are there.
  // failed_precondition when there are too few, which says why others were left out.
  void find(const HostTemplate& wanted, int count, const std::set<std::string>& not_these, std::stop_token stop);
  // Asks all of these, many at once, also those that did not answer when they were last looked at.
  void ask(const std::vector<Instance>& hosts, std::stop_token stop);
  // Whether it was asked and is good.
  bool is_good(const std::string& id) const { return good_.count(id) != 0; }
  // Picks among those that were found good. REQUIRES: outlived by this object.
  State::Pick pick() const;

 private:
  void leave_silent(const Instance& host);
  State& state_;
  Agents& agents_;
  const Live& live_;
  std::string source_id_;
  bool overwrite_;
  std::set<std::string> good_;
  std::map<std::string, std::string> left_out_;  // why, by id
  std::set<std::string> silent_;                 // left out unasked
  bool data_in_the_way_ = false;
};

}  // namespace guestagent::controller

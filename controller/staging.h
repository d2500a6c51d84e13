// The hosts of a task's replicas fetch its snapshot while the source still makes it, so that little is left to do for
// an attach. For task_run.cc.
//
// A help and no condition: where it fails the attach does all of it, and an event says why. Nothing of it is in the
// state: the jobs are found again by their ids.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "base/secret.h"
#include "controller/remote_job.h"
#include "controller/task_run.h"

namespace guestagent::controller {

// Of one round of a task. Not thread-safe, but for what is about a single replica. Nothing but the task's stop is
// thrown by what goes wrong on agents.
class Staging {
 public:
  // All outlive it. `cancelled`: whether the task is to be stopped, which stops jobs too.
  Staging(const TaskTools& tools, JobRunner& runner, std::function<bool()> cancelled)
      : t_(tools), runner_(runner), cancelled_(std::move(cancelled)) {}

  // Asks each host that has an address to follow the snapshot, in a thread of its own. Further calls do nothing.
  void begin(const Task& task, const std::string& snapshot_href, std::stop_token stop);
  // The end of that thread; the jobs go on.
  void let_go() { asking_ = {}; }

  // Waits for the end of what a host does of it, if it does anything.
  void finish(const Task& task, const Replica& replica, std::stop_token stop);

  // There will be no replica on that host: ends it there, and removes what came of it (nothing can have come of a
  // snapshot without metadata). An agent that does not answer is not waited for, nor one that takes longer than it may
  // be silent.
  void give_up(const Task& task, const Replica& replica, const Secret& metadata, std::stop_token stop);
  // The same on all hosts at once.
  void give_up(const Task& task, const Secret& metadata, std::stop_token stop);
  // Removes what an attach that did not succeed has left of the copy.
  void discard(const Task& task, const Replica& replica, const Secret& metadata, std::stop_token stop);

 private:
  RemoteJob job_of(const Task& task, const Replica& replica) const;
  std::function<void(JobView)> show(const Replica& replica) const;
  // Whether more time has passed since this call than an agent may be silent.
  std::function<bool()> patience() const;
  void stage(const Task& task, const Replica& replica, const std::string& snapshot_href, std::stop_token stop);

  const TaskTools& t_;
  JobRunner& runner_;
  const std::function<bool()> cancelled_;
  std::mutex mutex_;
  std::map<int, TaskError> failed_;  // why, by the replica's number
  std::jthread asking_;              // the last member: it uses the others
};

}  // namespace guestagent::controller

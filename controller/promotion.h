// Another source for a set of replicas, put together from the agents' small verbs. For task_run.cc.
//
// Until the new source takes writes, whatever fails leaves the old one as it was: it takes writes again, as soon as its
// agent answers. From then on there is no way back, only forward. Every job has an id by which a controller that was
// killed finds it again, so each step may be done again from its beginning.
#pragma once

#include <functional>
#include <optional>
#include <stop_token>
#include <string>

#include "controller/remote_job.h"
#include "controller/task_run.h"

namespace guestagent::controller {

class Promotion {
 public:
  // All outlive it.
  Promotion(const TaskTools& tools, JobRunner& runner, std::function<bool()> cancelled)
      : t_(tools), runner_(runner), cancelled_(std::move(cancelled)) {}

  // The step "hand_over": to "follow", or to "clean_up" where it failed.
  void hand_over(const Task& task, std::stop_token stop);
  // The step "follow": all others go on by the new source.
  void follow(const Task& task, std::stop_token stop);

 private:
  JobEnd run(const Task& task, const std::string& instance_id, const std::string& method, const std::string& params,
             const std::string& name, bool may_cancel, std::stop_token stop, std::optional<Millis> busy = std::nullopt);
  // To its end, however long the agent is silent; lost only once the task is cancelled. A host that is busy with
  // another job is waited for no longer than `busy` (else as the settings say): then the job has not begun.
  JobEnd insist(const Task& task, const std::string& instance_id, const std::string& method, const std::string& params,
                const std::string& name, std::stop_token stop, std::optional<Millis> busy = std::nullopt);
  std::string ask(const std::string& instance_id, const std::string& method, const std::string& params,
                  std::stop_token stop);
  // nullopt: the source stands still, and the target has all that it has.
  std::optional<State::HandOverEnd> drain(const Task& task, std::stop_token stop);
  // Why the source is not gone: it answers, or a replica receives from it. nullopt where nobody hears of it.
  std::optional<std::string> alive(const Task& task, std::stop_token stop);
  // nullopt: the source is gone; `target` has received the most.
  std::optional<State::HandOverEnd> choose(const Task& task, std::string& target, std::stop_token stop);

  const TaskTools& t_;
  JobRunner& runner_;
  const std::function<bool()> cancelled_;
};

}  // namespace guestagent::controller

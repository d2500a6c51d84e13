// One job on an agent, from asking for it to its end, wherever this process died in between.
#pragma once

#include <functional>
#include <stop_token>
#include <string>

#include "controller/agent_client.h"
#include "controller/live.h"
#include "controller/model.h"

namespace guestagent::controller {

struct RemoteJob {
  std::string address, method, job_id;
  std::string params;  // JSON object without job_id and async; "{}" for none
  bool begin = true;   // false: one that the agent does not know is not begun, but has failed with NOT_FOUND
};

struct JobEnd {
  enum class How {
    succeeded,
    failed,     // by the job, or the agent did not take it
    cancelled,  // also where it was never begun
    lost,       // the agent is silent for longer than it may be, or while the job should be cancelled
  } how = How::failed;
  std::string result;  // JSON, when it succeeded
  TaskError error;
};

class JobRunner {
 public:
  // All outlive it.
  JobRunner(Agents& agents, const AgentAccessSettings& settings, Clock& clock)
      : agents_(agents), settings_(settings), clock_(clock) {}

  // Asks for the job (again: its id makes that harmless) and follows it to its end. `cancelled` is asked all
  // the time, `show` gets what can be seen. Throws cancelled when `stop` is requested: the job goes on and
  // can be found again. Once cancelled, an agent that does not answer is given up at once: lost, with the error
  // CANCELLED. `hurry`: a silent or busy agent is no longer waited for, nor (lost) a
  // job that was told to stop.
  JobEnd run(
      const RemoteJob& job, const std::function<bool()>& cancelled, const std::function<void(JobView)>& show,
      std::stop_token stop, const std::function<bool()>& hurry = [] { return false; });

  // How a job ended that nobody follows any more; it is told to stop while it runs. nullopt: it is not known
  // yet.
  std::optional<JobEnd> find_out(const std::string& address, const std::string& job_id, std::stop_token stop);

 private:
  Agents& agents_;
  const AgentAccessSettings& settings_;
  Clock& clock_;
};

TaskError task_error(const Error& error);

}  // namespace guestagent::controller

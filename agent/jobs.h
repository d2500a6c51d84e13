// Jobs: one long operation each, with a record that outlives the process.
//
// Records are `<state_dir>/jobs/<job_id>.json` (mode 0600: results hold a password), journals `<state_dir>/jobs/<job_id>.journal`.
// One changing job runs at a time on a host, in the daemon or in a --oneshot process alike: `<state_dir>/lock` says who. Whoever
// takes the lock first recovers the journals that dead processes left.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/job_context.h"
#include "config/settings.h"

namespace guestagent {

struct JobProgress {
  std::uint64_t done_bytes = 0;
  std::optional<std::uint64_t> total_bytes;
  double rate = 0;  // bytes per second, over the last seconds
  std::optional<std::uint64_t> eta_s;
};

struct JobRecord {
  std::string job_id, method;
  std::string params_digest;  // sha256 of the params, to tell a repeat from another job
  std::string state;          // running | succeeded | failed | cancelled
  std::string phase;
  std::string started_at;
  std::optional<std::string> finished_at;
  JobProgress progress;
  std::vector<std::string> warnings;
  std::optional<std::string> result;  // JSON text
  std::optional<std::string> error;   // JSON text: an RPC error object
};

std::string write_job(const JobRecord& record);

class Jobs {
 public:
  using Work = std::function<std::string(JobContext&)>;  // answers the result as JSON text
  // Recovers one dead job: answers in words what was done.
  using Recover = std::function<std::string(const JobRecord&, JobContext&)>;

  // `settings` and `clock` outlive it.
  Jobs(const AgentSettings& settings, Recover recover, Clock& clock);
  ~Jobs();  // cancels what runs and waits for it

  // Recovers what dead processes left, if nobody runs a job now. Also done by every start().
  void recover();

  // Starts `work` in a thread of its own and answers its id. A repeat of a known job_id with the same method and params answers that
  // job; with others it throws already_exists. busy, naming the running job, when another changing job runs.
  std::string start(const std::string& method, std::optional<std::string> job_id, const std::string& params_digest, Work work);

  std::vector<JobRecord> list();
  JobRecord get(const std::string& job_id);  // not_found
  // Waits until the job has ended or `timeout` passed; answers its record then.
  JobRecord wait(const std::string& job_id, Millis timeout);
  // Waits for any change of the record after `seen` (a counter that the call moves on), at most `timeout`.
  JobRecord wait_change(const std::string& job_id, std::uint64_t& seen, Millis timeout);
  // Asks it to stop; the record says when it has. Works on a job of another process too. failed_precondition when it has ended.
  void cancel(const std::string& job_id);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent

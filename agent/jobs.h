// Jobs: one long operation each, in a thread of its own, with a record that outlives the process
// (job_records.h).
//
// One changing job runs at a time on a host, in the daemon or in a --oneshot process alike:
// `<state_dir>/lock` says who. Whoever takes the lock first recovers what dead processes left; a job that
// fails here is undone by the same recovery, at once.
//
// Of each method that only reads, one job of this process runs at a time, the others wait their turn in the order of
// their start (phase "wait"): each may need as much memory as a changing one, and the host is the database's.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/job_records.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/job_context.h"
#include "config/settings.h"

namespace guestagent {

// The journal step after which a job counts as succeeded, whatever happens to its process; its data is
// {"result": RESULT}.
inline constexpr std::string_view kResultStep = "result";

// A job's failure, told to whoever waited for it.
class JobError : public Error {
 public:
  JobError(const Error& error, std::string job_id) : Error(error), job_id_(std::move(job_id)) {}
  const std::string& job_id() const { return job_id_; }

 private:
  std::string job_id_;
};

// All methods are thread-safe.
class Jobs {
 public:
  using Work = std::function<std::string(JobContext&)>;  // answers the result as JSON text

  struct Recovery {
    std::string what;  // in words: "put the old data back"; empty when there was nothing to do
    // What could not be removed now, and why; empty: nothing. The journal is kept for a later try, and bars no other
    // job: a recovery that throws does (the server's data or role is not right).
    std::string left;
    std::optional<std::string> result = {};  // of a job that was finished after all, as JSON text: it has succeeded
  };
  // Finishes (where the journal has kResultStep) or undoes a failed or dead job by its journal. Idempotent.
  using Recover = std::function<Recovery(const std::string& method, JobContext&)>;
  // Sees each record of this process as it changes (at most every 200 ms but for phases and ends), from one
  // thread at a time.
  using Observer = std::function<void(const JobRecord&)>;

  // `settings` and `clock` outlive it. Touches no file.
  Jobs(const AgentSettings& settings, Recover recover, Clock& clock, Observer observer = {});
  ~Jobs();  // cancels what runs and waits for it

  // Recovers what dead processes left, if nobody runs a changing job now, and drops records older than the
  // settings keep. Also done by every start() of a changing job, whose work does not begin when a dead job's
  // data could not be set right; what is left otherwise is named in its warnings.
  void recover();
  // Runs `work` while no job changes anything on this host, and none begins; not at all (false) where one runs.
  bool while_idle(const std::function<void()>& work);
  // A daemon's word, before it serves, that it will call recover() at once.
  void recovery_is_due();

  // Reading jobs of one process that run or wait, at most: each has threads of its own.
  static constexpr unsigned kMaxReading = 16;

  // Starts `work` and answers its id. A repeat of a known job_id with the same method and params answers that
  // job; with others it throws already_exists. busy, naming the running job, when another changing job runs, and when
  // kMaxReading reading ones run or wait. resource_exhausted, with no trace left, when there is no thread for it.
  std::string start(const std::string& method, JobKind kind, std::optional<std::string> job_id,
                    const std::string& params_digest, Work work);

  // By time of start.
  std::vector<JobRecord> list();
  JobRecord get(const std::string& job_id);  // not_found
  // Waits until the job has ended, `timeout` passed, or shut_down(); answers its record then. A job whose process has
  // died is waited for as long as somebody recovers, or is about to (recovery_is_due); else its record is answered as
  // it is.
  JobRecord wait(const std::string& job_id, Millis timeout);
  // Waits for any change of the record after `seen` (which the call moves on; 0 at first), at most `timeout`.
  JobRecord wait_change(const std::string& job_id, std::uint64_t& seen, Millis timeout);
  // Asks it to stop; the record says when it has. Works on a job of another process too. failed_precondition
  // when it has ended.
  void cancel(const std::string& job_id);

  // Cancels what runs here, and lets those go who wait for a job of another process; nothing can be started from now
  // on. Does not wait for the jobs to end; whoever waits for one of this process's sees its end.
  void shut_down();

 private:
  struct State;
  struct Live;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent

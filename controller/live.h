// What is seen now and forgotten with the process: the agents' statuses, and how far their jobs are.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "controller/model.h"

namespace guestagent::controller {

struct LiveStatus {
  Verdict verdict = Verdict::unknown;
  std::vector<std::string> reasons;
  std::optional<double> lag_seconds;
  std::optional<std::uint64_t> lag_transactions;
  std::optional<bool> read_only;
  std::uint64_t follows = 0;  // server_id of the source that its server follows; 0: none, or not told
  std::string seen_at;        // UTC of the last answer; empty: none yet
  std::string raw;            // the agent's whole answer, JSON; empty: none
};

struct JobView {
  std::string job_id, phase;
  std::uint64_t done_bytes = 0;
  std::optional<std::uint64_t> total_bytes;  // never below done_bytes
  bool past_total = false;                   // more was done than was expected
  double rate = 0;
  std::optional<std::uint64_t> eta_s;
  std::string snapshot_href;  // of a snapshot that is being made, from when others can find it
  std::string note;           // why it does not move: "waits for job X", "no answer since …"
};

// Thread-safe.
class Live {
 public:
  // How many samples of lag are kept for each instance, and how far apart they are taken.
  Live(std::size_t history, Millis interval) : history_(history), interval_(interval) {}
  std::size_t samples() const { return history_; }
  double interval_s() const { return static_cast<double>(interval_.count()) / 1000; }

  // Each is told without a lock held, and only of what can be seen to differ. Set before threads.
  std::function<void(const std::string& instance_id)> on_instance;
  std::function<void(const std::string& task_id)> on_task;

  // A look at an instance: begin it before its agent is asked. What an older look brings after a newer one has begun is
  // not taken, nor after forget_status().
  std::uint64_t begin_look(const std::string& instance_id);
  // False where it was not taken.
  bool set_status(const std::string& instance_id, LiveStatus status, std::optional<std::uint64_t> look = std::nullopt);
  // What was seen is true no longer: the verdict is unknown until the next look.
  void forget_status(const std::string& instance_id);
  LiveStatus status(const std::string& instance_id) const;
  // Oldest first; negative where there was no answer or no lag to tell.
  std::vector<double> lag_history(const std::string& instance_id) const;
  void forget_instance(const std::string& instance_id);

  // `number` 0 is the source's job (the snapshot), else that replica's.
  void set_job(const std::string& task_id, int number, JobView view);
  void clear_jobs(const std::string& task_id);
  void clear_job(const std::string& task_id, int number);
  std::optional<JobView> job(const std::string& task_id, int number) const;

 private:
  struct Seen {
    LiveStatus status;
    std::deque<float> lag;
    std::uint64_t newest_look = 0;
  };
  std::size_t history_;
  Millis interval_;
  mutable std::mutex mutex_;
  std::map<std::string, Seen> instances_;
  std::map<std::pair<std::string, int>, JobView> jobs_;
};

}  // namespace guestagent::controller

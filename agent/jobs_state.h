// The inside of Jobs: what one process knows of its own jobs, and how it recovers those of dead ones.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "agent/jobs.h"
#include "base/log.h"

namespace guestagent {

// The first step of every journal: {"method": …}, so that it is worth something without its record.
inline constexpr std::string_view kJobStep = "job";

// Whether there is any step beside that one.
bool has_work_to_undo(const Journal& journal);
// What kResultStep says; nullopt where there is no such step.
std::optional<std::string> journaled_result(const Journal& journal);

// The note in the host's lock.
struct LockHolder {
  std::string job_id;  // empty: a recovery
  std::string method;
  std::uint64_t pid = 0;
};
std::string write_holder(const std::string& job_id, const std::string& method);
std::optional<LockHolder> read_holder(const fs::path& lock);

// What an undo or a recovery gets: nothing cancels it.
class RecoveryContext final : public JobContext {
 public:
  RecoveryContext(Journal& journal, std::vector<std::string>& warnings) : journal_(journal), warnings_(warnings) {}
  std::stop_token stop_token() const override { return {}; }
  void phase(std::string_view name) override { LogScope::set_phase(name); }
  void progress(std::uint64_t, std::optional<std::uint64_t>) override {}
  void warn(std::string_view message) override {
    log_warning(message);
    warnings_.emplace_back(message);
  }
  Journal& journal() override { return journal_; }

 private:
  Journal& journal_;
  std::vector<std::string>& warnings_;
};

struct Jobs::State {
  State(const AgentSettings& s, Recover r, Clock& c, Observer o)
      : settings(s), recover(std::move(r)), clock(c), observer(std::move(o)), files(s.state_dir) {}

  const AgentSettings& settings;
  const Recover recover;
  Clock& clock;
  const Observer observer;
  JobFiles files;

  std::mutex mutex;  // guards what follows and every Live's record
  std::condition_variable changed;
  std::map<std::string, std::shared_ptr<Live>> live;
  bool stopping = false;      // nothing may be started any more
  bool recovery_due = false;  // this process is about to recover(): whoever waits for a dead job may go on waiting
  // Of each reading method, its jobs in the order of their start; the first is the one that runs.
  std::map<std::string, std::deque<const Live*>> turns;
  std::condition_variable_any turn;

  std::mutex starting;  // one start() at a time

  void reap();
  std::shared_ptr<Live> find(const std::string& job_id);
  bool runs_here(const std::string& job_id);
  bool is_dead(const JobRecord& record) { return !record.ended() && !files.has_owner(record.job_id); }
  bool is_repeat(const std::string& job_id, const std::string& method, const std::string& digest);
  bool has_no_job(const LockHolder& holder);
  FileLock take_host_lock(const std::string& job_id, const std::string& method);
  // Throws busy. REQUIRES: the mutex is held.
  void check_room_for(JobKind kind) const;
  void await_turn(Live& job);
  void leave_turn(const Live& job);
  bool is_recovered_now();
  void publish(Live& job, bool save);
  void keep(Live& job, std::stop_token ended);
  void run(Live& job, const Work& work);
  Recovery undo(Live& job, Error& error);
  void finish(Live& job, std::optional<std::string> result, std::optional<Error> error);
  std::vector<std::string> dead_jobs();
  std::vector<std::string> recover_dead();
  std::string recover_one(const std::string& job_id);
  void prune();
  void recover_if_needed();
};

// A job of this process.
struct Jobs::Live final : JobContext {
  Live(State& s, JobRecord r) : state(s), record(std::move(r)) {}
  ~Live() override {
    if (thread.joinable()) thread.join();
  }

  std::stop_token stop_token() const override { return stop.get_token(); }
  void phase(std::string_view name) override;
  void progress(std::uint64_t done, std::optional<std::uint64_t> total) override;
  void warn(std::string_view message) override;
  void has_place(std::string_view snapshot_href) override;
  Journal& journal() override;

  State& state;
  JobRecord record;
  std::uint64_t version = 1;
  bool dirty = false;
  bool ended = false;  // to be believed only once the locks are free again
  std::deque<std::pair<SteadyTime, std::uint64_t>> samples;

  std::stop_source stop;
  std::unique_ptr<Journal> steps;
  std::optional<FileLock> host_lock, owner_lock;
  std::mutex saving;  // one writer of the file, one call of the observer at a time
  bool save_failed = false;
  std::thread thread;
};

}  // namespace guestagent

#include "agent/jobs.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "agent/rpc_error.h"
#include "base/json.h"
#include "base/log.h"
#include "storage/snapshots.h"

namespace guestagent {
namespace {

constexpr Millis kLook{200};   // how often a cancel file is looked for and observers are told
constexpr Millis kSave{1000};  // how often mere progress reaches the record's file
constexpr Seconds kRateWindow{10};
constexpr Millis kHandOver{1000};  // how long a lock may outlive its job's final record

// What a journal is worth without its record.
constexpr std::string_view kJobStep = "job";

class RecoveryContext final : public JobContext {
 public:
  RecoveryContext(Journal& journal, std::vector<std::string>& warnings)
      : journal_(journal), warnings_(warnings) {}
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

bool has_work_to_undo(const Journal& journal) {
  return std::any_of(journal.steps().begin(), journal.steps().end(),
                     [](const auto& step) { return step.name != kJobStep; });
}

std::optional<std::string> journaled_result(const Journal& journal) {
  const Journal::Step* step = journal.find(kResultStep);
  if (!step) return std::nullopt;
  const JsonDocument document = parse_json(step->data, "journal step result");
  if (!document.IsObject() || !document.HasMember("result")) return std::nullopt;
  return to_json(document["result"]);
}

struct LockHolder {
  std::string job_id, method;
  std::uint64_t pid = 0;
};

std::string write_holder(const std::string& job_id, const std::string& method) {
  JsonWriter out;
  out.begin_object()
      .member("job_id", job_id)
      .member("method", method)
      .member("pid", std::uint64_t(::getpid()))
      .end_object();
  return out.text() + "\n";
}

std::optional<LockHolder> read_holder(const fs::path& lock) {
  try {
    const std::string text = read_file(lock);
    const JsonDocument document = parse_json(text, "lock");
    const JsonReader in(document, "lock");
    return LockHolder{in.string("job_id"), in.string("method"), in.uint("pid")};
  } catch (const Error&) {
    return std::nullopt;  // just taken, and not yet written
  }
}

void update_rate(JobProgress& progress, std::deque<std::pair<SteadyTime, std::uint64_t>>& samples,
                 SteadyTime now) {
  samples.emplace_back(now, progress.done_bytes);
  while (samples.size() > 2 && now - samples.front().first > kRateWindow) samples.pop_front();
  const std::chrono::duration<double> elapsed = now - samples.front().first;
  if (elapsed.count() < 0.1) return;
  progress.rate =
      double(progress.done_bytes - std::min(progress.done_bytes, samples.front().second)) / elapsed.count();
  progress.eta_s.reset();
  if (progress.total_bytes && progress.rate > 0) {
    const std::uint64_t left = *progress.total_bytes - std::min(*progress.total_bytes, progress.done_bytes);
    progress.eta_s = std::uint64_t(double(left) / progress.rate + 0.5);
  }
}

}  // namespace

struct Jobs::State {
  State(const AgentSettings& s, Recover r, Clock& c, Observer o)
      : settings(s), recover(std::move(r)), clock(c), observer(std::move(o)), files(s.state_dir) {}

  const AgentSettings& settings;
  const Recover recover;
  Clock& clock;
  const Observer observer;
  JobFiles files;

  std::mutex mutex;  // guards the three below and every Live's record
  std::condition_variable changed;
  std::map<std::string, std::shared_ptr<Live>> live;
  bool stopping = false;

  std::mutex starting;  // one start() at a time

  void reap();
  std::shared_ptr<Live> find(const std::string& job_id);
  bool is_dead(const JobRecord& record) { return !record.ended() && !files.has_owner(record.job_id); }
  bool is_repeat(const std::string& job_id, const std::string& method, const std::string& digest);
  bool has_no_job(const LockHolder& holder);
  FileLock take_host_lock(const std::string& job_id, const std::string& method);
  void publish(Live& job, bool save);
  void keep(Live& job, std::stop_token ended);
  void run(Live& job, const Work& work);
  Recovery undo(Live& job, Error& error);
  void finish(Live& job, std::optional<std::string> result, std::optional<Error> error);
  std::vector<std::string> dead_jobs();
  void recover_dead();
  void recover_one(const std::string& job_id);
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

void Jobs::Live::phase(std::string_view name) {
  LogScope::set_phase(name);
  log_info("phase", {{"name", std::string(name)}});
  state.publish(*this, false);  // how far the last one came
  {
    const std::lock_guard lock(state.mutex);
    record.phase = name;
    record.progress = {};
    samples.assign(1, {state.clock.steady(), 0});
  }
  state.publish(*this, true);
}

void Jobs::Live::progress(std::uint64_t done, std::optional<std::uint64_t> total) {
  const std::lock_guard lock(state.mutex);
  record.progress.done_bytes = done;
  record.progress.total_bytes = total;
  dirty = true;
}

void Jobs::Live::warn(std::string_view message) {
  log_warning(message);
  const std::lock_guard lock(state.mutex);
  record.warnings.emplace_back(message);
  dirty = true;
}

Journal& Jobs::Live::journal() {
  if (!steps) {
    steps = std::make_unique<Journal>(state.files.journal(record.job_id));
    JsonWriter out;
    out.begin_object().member("method", record.method).end_object();
    steps->record(kJobStep, out.text());
  }
  return *steps;
}

void Jobs::State::reap() {
  std::vector<std::shared_ptr<Live>> gone;
  const std::lock_guard lock(mutex);
  for (auto it = live.begin(); it != live.end();) {
    if (it->second->ended && !it->second->save_failed) {
      gone.push_back(std::move(it->second));
      it = live.erase(it);
    } else {
      ++it;
    }
  }
}

std::shared_ptr<Jobs::Live> Jobs::State::find(const std::string& job_id) {
  const std::lock_guard lock(mutex);
  const auto it = live.find(job_id);
  return it == live.end() ? nullptr : it->second;
}

bool Jobs::State::is_repeat(const std::string& job_id, const std::string& method, const std::string& digest) {
  std::optional<JobRecord> known = files.load(job_id);
  if (!known) return false;
  if (known->method != method || known->params_digest != digest) {
    throw Error(
        Code::already_exists,
        "start " + method + ": job " + job_id + " exists and was another call (" + known->method + ")",
        "choose another job_id; a repeat must have the same method and params");
  }
  if (is_dead(*known)) recover_if_needed();
  return true;
}

bool Jobs::State::has_no_job(const LockHolder& holder) {
  if (!valid_id(holder.job_id)) return false;
  const auto record = files.load(holder.job_id);
  return !record || record->ended();
}

FileLock Jobs::State::take_host_lock(const std::string& job_id, const std::string& method) {
  const auto patience = std::chrono::steady_clock::now() + kHandOver;
  for (;;) {
    if (auto lock = FileLock::try_take(files.host_lock(), write_holder(job_id, method)))
      return std::move(*lock);
    const std::optional<LockHolder> holder = read_holder(files.host_lock());
    // A job's last record is written before its lock is let go, and a lock is taken before its note is
    // written.
    const bool moment_only = !holder || ::kill(pid_t(holder->pid), 0) != 0 || has_no_job(*holder);
    if (!moment_only || std::chrono::steady_clock::now() > patience) {
      const std::string who = !holder                  ? "another process"
                              : holder->job_id.empty() ? "the recovery of an earlier job (process " +
                                                             std::to_string(holder->pid) + ")"
                                                       : "job " + holder->job_id + " (" + holder->method +
                                                             ", process " + std::to_string(holder->pid) + ")";
      throw Error(Code::busy, "start " + method + ": " + who + " is running",
                  "one changing job runs at a time: wait for it (wait_job) or cancel it (cancel_job)");
    }
    std::this_thread::sleep_for(Millis(10));
  }
}

void Jobs::State::publish(Live& job, bool save) {
  const std::lock_guard serial(job.saving);
  JobRecord copy;
  {
    const std::lock_guard lock(mutex);
    if (job.dirty) update_rate(job.record.progress, job.samples, clock.steady());
    job.dirty = false;
    ++job.version;
    copy = job.record;
  }
  changed.notify_all();
  if (save) {
    try {
      files.save(copy);
      job.save_failed = false;
    } catch (const Error& e) {
      if (!job.save_failed) log_error("job record cannot be written", {{"error", e.what()}});
      job.save_failed = true;
    }
  }
  if (observer) observer(copy);
}

// Beside the job's own thread: sees cancel files, and keeps the cost of telling the world off the data path.
void Jobs::State::keep(Live& job, std::stop_token ended) {
  const LogScope scope({job.record.job_id, ""});
  std::mutex nothing;
  std::condition_variable_any wake;
  bool unsaved = false;
  auto saved = std::chrono::steady_clock::now();
  std::unique_lock lock(nothing);
  while (!ended.stop_requested()) {
    wake.wait_for(lock, ended, kLook, [] { return false; });
    if (::access(files.cancel(job.record.job_id).c_str(), F_OK) == 0) job.stop.request_stop();
    {
      const std::lock_guard guard(mutex);
      job.dirty = job.dirty || job.record.progress.rate > 0;  // a stall shows, too
      if (!job.dirty && !unsaved) continue;
    }
    const auto now = std::chrono::steady_clock::now();
    unsaved = now - saved < kSave;
    if (!unsaved) saved = now;
    publish(job, !unsaved);
  }
}

void Jobs::State::run(Live& job, const Work& work) {
  const LogScope scope({job.record.job_id, ""});
  log_info("job started", {{"method", job.record.method}});
  std::jthread keeper([&](std::stop_token ended) { keep(job, ended); });
  std::optional<std::string> result;
  std::optional<Error> error;
  try {
    if (job.record.kind == JobKind::changing) recover_dead();
    job.check_cancelled();
    result = work(job);
  } catch (const std::exception& e) {
    error = to_error(e);
  }
  keeper.request_stop();
  keeper.join();
  finish(job, std::move(result), std::move(error));
}

// By the same recovery that a crash would need; what it says becomes part of the error.
Jobs::Recovery Jobs::State::undo(Live& job, Error& error) {
  if (!job.steps || !has_work_to_undo(*job.steps)) return {};
  Recovery recovery;
  try {
    job.phase("undo");
    std::vector<std::string> warnings;
    RecoveryContext context(*job.steps, warnings);
    recovery = recover(job.record.method, context);
    const std::lock_guard lock(mutex);
    job.record.warnings.insert(job.record.warnings.end(), warnings.begin(), warnings.end());
    if (!recovery.what.empty()) job.record.warnings.push_back("after the failure: " + recovery.what);
  } catch (const std::exception& e) {
    recovery.left = std::string("it could not be undone: ") + e.what();
  }
  if (!recovery.left.empty()) {
    error = Error(error.code(), std::string(error.what()) + "; " + recovery.left,
                  error.hint() + (error.hint().empty() ? "" : "; ") +
                      "what is left is tried again at the next changing call and by the daemon");
  }
  return recovery;
}

void Jobs::State::finish(Live& job, std::optional<std::string> result, std::optional<Error> error) {
  const std::string& id = job.record.job_id;
  // What was journaled as done is done, whatever came after it.
  if (error && job.steps && job.steps->find(kResultStep)) {
    try {
      result = journaled_result(*job.steps);
    } catch (const Error& e) {
      log_error("journaled result cannot be read", {{"error", e.what()}});
    }
    if (result) {
      job.warn(error->what());
      Recovery recovery = undo(job, *error);
      if (!recovery.left.empty()) job.warn(recovery.left);
      error.reset();
    }
  }
  bool close_journal = true;
  if (error) {
    const bool cancelled = job.stop.stop_requested();
    if (cancelled && error->code() != Code::cancelled) {
      error = Error(Code::cancelled, std::string("cancelled on request: ") + error->what(), error->hint());
    }
    close_journal = undo(job, *error).left.empty();
  }
  {
    const std::lock_guard lock(mutex);
    job.record.state = !error ? "succeeded" : error->code() == Code::cancelled ? "cancelled" : "failed";
    job.record.finished_at = format_utc(clock.now());
    job.record.result = std::move(result);
    if (error) job.record.error = write_rpc_error(*error, id);
    job.record.progress.eta_s.reset();
  }
  // The order matters to others: the record, then the journal, then the locks, then those who wait here.
  publish(job, true);
  try {
    if (job.steps && close_journal && !job.save_failed) job.steps->close();
    std::error_code ignored;
    fs::remove(files.cancel(id), ignored);
    fs::remove(files.owner(id), ignored);
  } catch (const Error& e) {
    log_error("journal cannot be closed", {{"error", e.what()}});
  }
  if (error) {
    log_error("job " + job.record.state, {{"method", job.record.method},
                                          {"code", std::string(code_row(error->code()).wire)},
                                          {"error", error->what()}});
  } else {
    log_info("job succeeded", {{"method", job.record.method}});
  }
  job.steps.reset();
  job.owner_lock.reset();
  job.host_lock.reset();
  {
    const std::lock_guard lock(mutex);
    job.ended = true;
    ++job.version;
  }
  changed.notify_all();
}

std::vector<std::string> Jobs::State::dead_jobs() {
  std::vector<std::string> dead;
  for (const std::string& id : files.ids()) {
    if (find(id) && !find(id)->ended) continue;
    const std::optional<JobRecord> record = files.load(id);
    if ((files.has_journal(id) || (record && !record->ended())) && !files.has_owner(id)) dead.push_back(id);
  }
  return dead;
}

// REQUIRES: the host's lock. Every dead job gets its try; the first that must be right before anything else
// may change is thrown.
void Jobs::State::recover_dead() {
  std::optional<Error> first;
  for (const std::string& id : dead_jobs()) {
    try {
      recover_one(id);
    } catch (const Error& e) {
      if (!first) {
        first = Error(
            Code::failed_precondition, "recover job " + id + ", which died: " + e.what(),
            e.hint().empty() ? "mend the cause; nothing else is changed before it is recovered" : e.hint());
      }
    }
  }
  if (first) throw *first;
}

void Jobs::State::recover_one(const std::string& id) {
  const std::optional<FileLock> owner = FileLock::try_take(files.owner(id));
  if (!owner) return;
  const LogScope scope({id, "recover"});
  std::optional<JobRecord> record = files.load(id);
  std::optional<Journal> journal;
  if (files.has_journal(id)) journal.emplace(files.journal(id));
  if (!record) {
    record.emplace();
    record->job_id = id;
    record->state = "running";
    record->started_at = format_utc(clock.now());
  }
  if (record->method.empty() && journal && journal->find(kJobStep)) {
    const JsonDocument step = parse_json(journal->find(kJobStep)->data, "journal step job");
    record->method = JsonReader(step, "job", Code::internal).string("method");
  }
  const bool was_running = !record->ended();
  std::optional<std::string> result;
  Recovery recovery;
  if (journal && record->state != "succeeded" && has_work_to_undo(*journal)) {
    RecoveryContext context(*journal, record->warnings);
    result = journaled_result(*journal);
    recovery = recover(record->method, context);
  }
  if (result) {
    record->state = "succeeded";
    record->result = result;
    record->error.reset();
  } else if (was_running) {
    record->state = "failed";
    const std::string done = !recovery.what.empty() ? recovery.what
                             : journal              ? "there was nothing to undo"
                                                    : "it had changed nothing";
    record->error =
        write_rpc_error(Error(Code::unavailable,
                              record->method + ": the agent ended while the job ran; recovered: " + done +
                                  (recovery.left.empty() ? "" : "; " + recovery.left),
                              "call it again with a new job_id"),
                        id);
  }
  if (was_running) record->finished_at = format_utc(clock.now());
  if (!was_running && !recovery.what.empty()) record->warnings.push_back("later: " + recovery.what);
  files.save(*record);
  if (journal && recovery.left.empty()) journal->close();
  std::error_code ignored;
  fs::remove(files.cancel(id), ignored);
  fs::remove(files.owner(id), ignored);
  log_info("recovered a job that died", {{"method", record->method},
                                         {"state", record->state},
                                         {"done", recovery.what},
                                         {"left", recovery.left}});
}

void Jobs::State::prune() {
  const WallTime oldest = clock.now() - std::chrono::hours(24 * settings.job_history_days);
  for (const std::string& id : files.ids()) {
    const std::optional<JobRecord> record = files.load(id);
    if (!record || !record->ended() || files.has_journal(id)) continue;
    try {
      if ((record->finished_at ? parse_utc(*record->finished_at) : files.modified(id)) < oldest)
        files.remove(id);
    } catch (const Error& e) {
      log_warning("old job record cannot be dropped", {{"job", id}, {"error", e.what()}});
    }
  }
}

void Jobs::State::recover_if_needed() {
  if (dead_jobs().empty()) return;
  const auto lock = FileLock::try_take(files.host_lock(), write_holder("", "recovery"));
  if (lock) recover_dead();
}

Jobs::Jobs(const AgentSettings& settings, Recover recover, Clock& clock, Observer observer)
    : state_(std::make_unique<State>(settings, std::move(recover), clock, std::move(observer))) {}

Jobs::~Jobs() {
  shut_down();
  std::map<std::string, std::shared_ptr<Live>> ending;
  {
    const std::lock_guard lock(state_->mutex);
    ending.swap(state_->live);
  }
  for (auto& [id, job] : ending) {
    if (job->thread.joinable()) job->thread.join();
  }
}

void Jobs::shut_down() {
  const std::lock_guard lock(state_->mutex);
  state_->stopping = true;
  for (auto& [id, job] : state_->live) job->stop.request_stop();
  state_->changed.notify_all();
}

void Jobs::recover() {
  state_->recover_if_needed();
  state_->prune();
}

std::string Jobs::start(const std::string& method, JobKind kind, std::optional<std::string> job_id,
                        const std::string& params_digest, Work work) {
  State& state = *state_;
  const std::string id = job_id ? *job_id : new_snapshot_id(state.clock);
  if (!valid_id(id))
    throw Error(Code::invalid_argument, "params.job_id: must match [A-Za-z0-9][A-Za-z0-9._-]{0,63}");
  const std::lock_guard one(state.starting);
  state.reap();
  if (state.is_repeat(id, method, params_digest)) return id;
  state.files.make_dirs();

  JobRecord record;
  record.job_id = id;
  record.method = method;
  record.kind = kind;
  record.params_digest = params_digest;
  record.state = "running";
  record.started_at = format_utc(state.clock.now());
  const auto job = std::make_shared<Live>(state, std::move(record));
  try {
    if (kind == JobKind::changing) job->host_lock = state.take_host_lock(id, method);
    job->owner_lock = FileLock::try_take(state.files.owner(id));
    if (!job->owner_lock)
      throw Error(Code::busy, "start " + method + ": job " + id + " is being started by another process");
  } catch (const Error& e) {
    // The one that is running may be this very call, sent twice.
    if (e.code() == Code::busy && state.is_repeat(id, method, params_digest)) return id;
    throw;
  }
  if (!state.files.create(job->record)) {
    std::error_code ignored;
    fs::remove(state.files.owner(id), ignored);
    if (state.is_repeat(id, method, params_digest)) return id;
    throw Error(Code::internal, "start " + method + ": the record of job " + id + " came and went");
  }
  const std::lock_guard lock(state.mutex);
  if (state.stopping) {
    state.files.remove(id);
    std::error_code ignored;
    fs::remove(state.files.owner(id), ignored);
    throw Error(Code::unavailable, "start " + method + ": the agent is stopping",
                "call it again when it has been restarted");
  }
  state.live[id] = job;
  job->thread = std::thread([&state, job = job.get(), work = std::move(work)] { state.run(*job, work); });
  return id;
}

std::vector<JobRecord> Jobs::list() {
  std::vector<JobRecord> records;
  for (const std::string& id : state_->files.ids()) {
    try {
      records.push_back(get(id));
    } catch (const Error& e) {
      if (e.code() != Code::not_found) throw;  // else pruned meanwhile, or a journal without a record
    }
  }
  std::stable_sort(records.begin(), records.end(),
                   [](const auto& a, const auto& b) { return a.started_at < b.started_at; });
  return records;
}

JobRecord Jobs::get(const std::string& job_id) {
  if (const auto job = state_->find(job_id)) {
    const std::lock_guard lock(state_->mutex);
    if (!job->ended || job->save_failed) return job->record;  // else the file may know more: a later recovery
  }
  std::optional<JobRecord> record = state_->files.load(job_id);
  if (!record) {
    throw Error(Code::not_found, "job " + job_id + ": there is no such job",
                "list_jobs names those that are kept (agent.job_history_days)");
  }
  if (state_->is_dead(*record)) {
    // It may have ended between the two looks.
    record = state_->files.load(job_id).value_or(*record);
    if (!record->ended())
      record->warnings.push_back("its process has died; the next changing call or the daemon recovers it");
  }
  return *record;
}

JobRecord Jobs::wait(const std::string& job_id, Millis timeout) {
  const auto deadline =
      std::chrono::steady_clock::now() + std::min(timeout, Millis(std::chrono::hours(24 * 3650)));
  for (;;) {
    const auto job = state_->find(job_id);
    if (!job) {
      JobRecord record = get(job_id);
      if (record.ended() || !state_->files.has_owner(job_id)) return record;
    }
    std::unique_lock lock(state_->mutex);
    if (job) {
      state_->changed.wait_until(lock, deadline, [&] { return job->ended; });
      return job->record;
    }
    if (!state_->stopping)
      state_->changed.wait_until(lock, std::min(deadline, std::chrono::steady_clock::now() + kLook));
    if (state_->stopping || std::chrono::steady_clock::now() >= deadline) {
      lock.unlock();
      return get(job_id);
    }
  }
}

JobRecord Jobs::wait_change(const std::string& job_id, std::uint64_t& seen, Millis timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  if (const auto job = state_->find(job_id)) {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait_until(lock, deadline, [&] { return job->version != seen; });
    seen = job->version;
    return job->record;
  }
  for (;;) {
    JobRecord record = get(job_id);
    const std::uint64_t now = std::hash<std::string>{}(write_job(record)) | 1;
    if (now != seen || std::chrono::steady_clock::now() >= deadline) {
      seen = now;
      return record;
    }
    std::unique_lock lock(state_->mutex);
    if (state_->stopping) return record;
    state_->changed.wait_for(lock, kLook);
  }
}

void Jobs::cancel(const std::string& job_id) {
  if (const auto job = state_->find(job_id)) {
    const std::lock_guard lock(state_->mutex);
    if (!job->record.ended()) {
      log_info("job is to be cancelled", {{"job", job_id}});
      job->stop.request_stop();
      return;
    }
  }
  const JobRecord record = get(job_id);
  if (record.ended()) {
    throw Error(Code::failed_precondition,
                "cancel job " + job_id + ": it has ended already (" + record.state + ")");
  }
  if (!state_->files.has_owner(job_id)) {
    throw Error(Code::failed_precondition, "cancel job " + job_id + ": its process has died",
                "the next changing call or the daemon recovers it");
  }
  write_file_atomic(state_->files.cancel(job_id), "", 0600);
}

}  // namespace guestagent

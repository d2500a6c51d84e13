#include "agent/jobs.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "agent/jobs_state.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"

namespace guestagent {
namespace {

constexpr Millis kLook{200};       // how often the file of another process's job is read
constexpr Millis kHandOver{1000};  // how long a lock may outlive its job's final record

}  // namespace

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

bool Jobs::State::runs_here(const std::string& job_id) {
  const std::lock_guard lock(mutex);
  const auto it = live.find(job_id);
  return it != live.end() && !it->second->ended;
}

bool Jobs::State::is_repeat(const std::string& job_id, const std::string& method, const std::string& digest) {
  std::optional<JobRecord> known = files.load(job_id);
  if (!known) return false;
  if (known->method != method || known->params_digest != digest) {
    throw Error(Code::already_exists,
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
    if (auto lock = FileLock::try_take(files.host_lock(), write_holder(job_id, method))) return std::move(*lock);
    const std::optional<LockHolder> holder = read_holder(files.host_lock());
    // A job's last record is written before its lock is let go, and a lock is taken before its note is
    // written.
    const bool moment_only = !holder || ::kill(pid_t(holder->pid), 0) != 0 || has_no_job(*holder);
    if (!moment_only || std::chrono::steady_clock::now() > patience) {
      const std::string who =
          !holder ? "another process"
          : holder->job_id.empty()
              ? "the recovery of an earlier job (process " + std::to_string(holder->pid) + ")"
              : "job " + holder->job_id + " (" + holder->method + ", process " + std::to_string(holder->pid) + ")";
      throw Error(Code::busy, "start " + method + ": " + who + " is running",
                  "one changing job runs at a time: wait for it (wait_job) or cancel it (cancel_job)");
    }
    std::this_thread::sleep_for(Millis(10));  // a lock file tells nobody that it is free
  }
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

void Jobs::recovery_is_due() {
  const std::lock_guard lock(state_->mutex);
  state_->recovery_due = true;
}

void Jobs::recover() {
  // Whoever waits for a dead job's end is told of it by its file; after this nobody is about to change that.
  const struct Done {
    State& state;
    ~Done() {
      const std::lock_guard lock(state.mutex);
      state.recovery_due = false;
      state.changed.notify_all();
    }
  } done{*state_};
  state_->recover_if_needed();
  state_->prune();
}

bool Jobs::while_idle(const std::function<void()>& work) {
  state_->files.make_dirs();
  const auto lock = FileLock::try_take(state_->files.host_lock(), write_holder("", "tidying"));
  if (lock) work();
  return lock.has_value();
}

bool Jobs::State::is_recovered_now() {
  {
    const std::lock_guard lock(mutex);
    if (recovery_due) return true;
  }
  return FileLock::is_taken(files.host_lock());
}

void Jobs::State::check_room_for(JobKind kind) const {
  const auto reading = static_cast<std::size_t>(std::count_if(live.begin(), live.end(), [&](const auto& each) {
    return each.second->record.kind == kind && !each.second->record.ended();
  }));
  if (reading < kMaxReading) return;
  throw Error(Code::busy, std::to_string(reading) + " jobs that read are running or waiting for their turn",
              "wait until one has ended (list_jobs, wait_job), then ask again");
}

std::string Jobs::start(const std::string& method, JobKind kind, std::optional<std::string> job_id,
                        const std::string& params_digest, Work work) {
  State& state = *state_;
  const std::string id = job_id ? *job_id : new_id(state.clock);
  if (!valid_id(id)) throw Error(Code::invalid_argument, "params.job_id: " + std::string(kIdRule));
  const std::lock_guard one(state.starting);
  state.reap();
  if (state.is_repeat(id, method, params_digest)) return id;
  state.files.make_dirs();

  JobRecord record;
  record.job_id = id;
  record.method = method;
  record.kind = kind;
  record.params_digest = params_digest;
  record.started_at = format_utc(state.clock.now());
  const auto job = std::make_shared<Live>(state, std::move(record));
  // The locks before the record: a record without an owner's lock is a dead job to everybody, who would recover it. The
  // host's before the owner's, as whoever recovers takes them.
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
  // Held until the job is known: its thread, which begins in here, finds it in `live` and in its turn's queue.
  const std::lock_guard lock(state.mutex);
  try {
    if (state.stopping) {
      throw Error(Code::unavailable, "the agent is stopping", "call it again when it has been restarted");
    }
    if (kind != JobKind::changing) state.check_room_for(kind);
    job->thread = std::thread([&state, job = job.get(), work = std::move(work)] { state.run(*job, work); });
  } catch (const std::exception& e) {
    // The job has not begun: nothing of it stays, and its locks go with it.
    std::error_code ignored;
    state.files.remove(id);
    fs::remove(state.files.owner(id), ignored);
    throw to_error(e).with_context("start " + method + ": job " + id);
  }
  state.live[id] = job;
  if (kind == JobKind::reading) state.turns[method].push_back(job.get());
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
  const auto deadline = std::chrono::steady_clock::now() + std::min(timeout, Millis(std::chrono::hours(24 * 3650)));
  for (;;) {
    const auto job = state_->find(job_id);
    if (!job) {
      JobRecord record = get(job_id);
      if (record.ended()) return record;
      if (!state_->files.has_owner(job_id) && !state_->is_recovered_now())
        return get(job_id);  // it ended since, or its process died
    }
    std::unique_lock lock(state_->mutex);
    if (job) {
      state_->changed.wait_until(lock, deadline, [&] { return job->ended; });
      // Its record is written before its journal and its locks are put away: whoever hears of the end may count on
      // that, too.
      if (job->record.ended()) state_->changed.wait(lock, [&] { return job->ended; });
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
    if (job->record.ended()) state_->changed.wait(lock, [&] { return job->ended; });
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
                "cancel job " + job_id + ": it has ended already (" + to_string(record.state) + ")");
  }
  if (!state_->files.has_owner(job_id)) {
    throw Error(Code::failed_precondition, "cancel job " + job_id + ": its process has died",
                "the next changing call or the daemon recovers it");
  }
  write_file_atomic(state_->files.cancel(job_id), "", 0600);
}

}  // namespace guestagent

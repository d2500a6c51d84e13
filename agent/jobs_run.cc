// One job from its start to its end, on its own thread.
#include <unistd.h>

#include <algorithm>

#include "agent/jobs_state.h"
#include "agent/rpc_error.h"
#include "base/json.h"
#include "base/log.h"

namespace guestagent {
namespace {

constexpr Millis kGlance{200};  // how often a cancel file is looked for and observers are told
// How often mere progress reaches the record's file: each save is flushed, beside a database that flushes too.
constexpr Millis kSave{1000};
constexpr Seconds kRateWindow{10};  // long enough to show a stalled store as such, not as a jumping number

void update_rate(JobProgress& progress, std::deque<std::pair<SteadyTime, std::uint64_t>>& samples, SteadyTime now) {
  samples.emplace_back(now, progress.done_bytes);
  while (samples.size() > 2 && now - samples.front().first > kRateWindow) samples.pop_front();
  const std::chrono::duration<double> elapsed = now - samples.front().first;
  if (elapsed.count() < 0.1) return;
  progress.rate = double(progress.done_bytes - std::min(progress.done_bytes, samples.front().second)) / elapsed.count();
  progress.eta_s.reset();
  if (progress.total_bytes && progress.rate > 0) {
    const std::uint64_t left = *progress.total_bytes - std::min(*progress.total_bytes, progress.done_bytes);
    progress.eta_s = std::uint64_t(double(left) / progress.rate + 0.5);
  }
}

}  // namespace

void Jobs::Live::phase(std::string_view name) {
  LogScope::set_phase(name);
  bool another;
  {
    const std::lock_guard lock(state.mutex);
    another = record.phase != name;
  }
  if (another) log_info("phase", {{"name", std::string(name)}});
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

void Jobs::Live::has_place(std::string_view snapshot_href) {
  const std::lock_guard lock(state.mutex);
  record.snapshot_href = snapshot_href;
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

// `saving` is taken first and held to the end, so that the file and the observer never see an older state after a newer
// one; the record's mutex only for the copy, so that a slow disk holds up nobody who asks.
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
  // A disk that takes no record does not end the job: the journal, not the record, is what an undo needs, and get()
  // answers from memory meanwhile.
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

void Jobs::State::await_turn(Live& job) {
  const auto is_first = [&] { return turns[job.record.method].front() == &job; };
  {
    const std::lock_guard lock(mutex);
    if (is_first()) return;
  }
  job.phase("wait");
  // Ends on a cancellation, too: run() asks for that next.
  std::unique_lock lock(mutex);
  turn.wait(lock, job.stop.get_token(), is_first);
}

void Jobs::State::leave_turn(const Live& job) {
  const std::lock_guard lock(mutex);
  const auto found = turns.find(job.record.method);
  if (found == turns.end()) return;
  std::erase(found->second, &job);
  if (found->second.empty()) turns.erase(found);
  turn.notify_all();
}

// Beside the job's own thread: sees cancel files, and keeps the cost of telling the world off the data path.
void Jobs::State::keep(Live& job, std::stop_token ended) {
  const LogScope scope({job.record.job_id, "record"});
  std::mutex nothing;
  std::condition_variable_any wake;
  bool unsaved = false;
  auto saved = std::chrono::steady_clock::now();
  std::unique_lock lock(nothing);
  while (!ended.stop_requested()) {
    // Nothing ever notifies it: it waits a glance, or until the job has ended.
    wake.wait_for(lock, ended, kGlance, [] { return false; });
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
  const LogScope scope({job.record.job_id, "begin"});
  log_info("job started", {{"method", job.record.method}});
  std::optional<std::jthread> keeper;
  std::optional<std::string> result;
  std::optional<Error> error;
  try {
    // First: a cancel file must be seen while the job waits for its turn, too.
    keeper.emplace([&](std::stop_token ended) { keep(job, ended); });
    // Under the host's lock, which start() took: what dead jobs left is made right before this one looks at anything.
    if (job.record.kind == JobKind::changing) {
      for (const std::string& left : recover_dead()) job.warn(left);
      prune();
    }
    if (job.record.kind == JobKind::reading) await_turn(job);
    job.check_cancelled();
    result = work(job);
  } catch (const std::exception& e) {
    error = to_error(e);
  }
  // The next reader need not wait for this one's record. The keeper is gone before the end is written: it would save an
  // older state over it.
  leave_turn(job);
  keeper.reset();
  finish(job, std::move(result), std::move(error));
}

// By the same recovery that a crash would need: nothing else undoes. The work's objects are gone by now, so no child or
// thread of the job touches what is undone, and nothing cancels it (RecoveryContext). The first failure stays what the
// caller hears; what cannot be undone now is added to it, and stays in the journal for the next try.
Jobs::Recovery Jobs::State::undo(Live& job, Error& error) {
  if (!job.steps || !has_work_to_undo(*job.steps)) return {};
  Recovery recovery;
  try {
    job.phase("undo");
    std::vector<std::string> warnings;
    RecoveryContext context(*job.steps, warnings);
    recovery = recover(job.record.method, context);
    // Only now: a recovery can take minutes, and who asks for the job's record must not wait for it.
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
    // Asked before the undo: whoever has asked for the end hears of that, however the work then broke off.
    const bool cancelled = job.stop.stop_requested();
    if (cancelled && error->code() != Code::cancelled) {
      error = Error(Code::cancelled, std::string("cancelled on request: ") + error->what(), error->hint());
    }
    Recovery recovery = undo(job, *error);
    close_journal = recovery.left.empty();
    // It had passed its point of no return: the recovery has gone on to the end.
    if (recovery.result) {
      job.warn(std::string("finished all the same: ") + error->what());
      result = std::move(recovery.result);
      error.reset();
    }
  }
  {
    const std::lock_guard lock(mutex);
    job.record.state = !error                             ? JobState::succeeded
                       : error->code() == Code::cancelled ? JobState::cancelled
                                                          : JobState::failed;
    job.record.finished_at = format_utc(clock.now());
    job.record.result = std::move(result);
    if (error) job.record.error = write_rpc_error(*error, id);
    job.record.progress.eta_s.reset();
  }
  // The order matters to others: the record, then the journal, then the locks, then those who wait here. A crash
  // between the first two makes a recovery that finds the record ended and everything undone; the other way round it
  // would find a running record and nothing to tell. So where the record could not be written the journal stays. The
  // locks come last but one: whoever takes them must find neither, and whoever is woken must be able to take them.
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
    log_error(
        "job " + to_string(job.record.state),
        {{"method", job.record.method}, {"code", std::string(code_row(error->code()).wire)}, {"error", error->what()}});
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

}  // namespace guestagent

// What dead processes left, and what is too old to keep.
#include <algorithm>

#include "agent/jobs_state.h"
#include "agent/rpc_error.h"
#include "base/json.h"
#include "base/log.h"

namespace guestagent {

bool has_work_to_undo(const Journal& journal) {
  return std::any_of(journal.steps().begin(), journal.steps().end(),
                     [](const auto& step) { return step.name != kJobStep; });
}

constexpr int kOwnerTries = 40;  // each of 5 ms: a look at a lock takes far less

std::optional<std::string> journaled_result(const Journal& journal) {
  const Journal::Step* step = journal.find(kResultStep);
  if (!step) return std::nullopt;
  const JsonDocument document = parse_json(step->data, "journal step result");
  if (!document.IsObject() || !document.HasMember("result")) return std::nullopt;
  return to_json(document["result"]);
}

std::vector<std::string> Jobs::State::dead_jobs() {
  std::vector<std::string> dead;
  for (const std::string& id : files.ids()) {
    if (runs_here(id)) continue;
    const std::optional<JobRecord> record = files.load(id);
    // An ended record with a journal is one whose undo has left something: it is tried again here.
    if ((files.has_journal(id) || (record && !record->ended())) && !files.has_owner(id)) dead.push_back(id);
  }
  return dead;
}

// REQUIRES: the host's lock. Every dead job gets its try; the first that must be right before anything else
// may change is thrown. Answers what is left and bars nobody.
std::vector<std::string> Jobs::State::recover_dead() {
  std::optional<Error> first;
  std::vector<std::string> left;
  for (const std::string& id : dead_jobs()) {
    try {
      if (std::string words = recover_one(id); !words.empty())
        left.push_back("left by job " + id + ", to be tried again: " + words);
    } catch (const Error& e) {
      if (!first) {
        first =
            Error(Code::failed_precondition,
                  "finish or undo what job " + id + " left: " + e.what() +
                      " (tried again every minute, and before each change)",
                  e.hint().empty() ? "remove the cause; nothing else is changed on this host before that" : e.hint());
      }
    }
  }
  if (first) throw *first;
  return left;
}

// Answers what is left of it.
std::string Jobs::State::recover_one(const std::string& id) {
  // Whoever asks whether the job still runs has its lock for an instant.
  std::optional<FileLock> owner;
  for (int i = 0; !owner && i < kOwnerTries; ++i) {
    if (i > 0) clock.sleep(Millis(5), {});
    owner = FileLock::try_take(files.owner(id));
  }
  if (!owner) return "";  // it has a process after all: nothing of it may be touched
  const LogScope scope({id, "recover"});
  std::optional<JobRecord> record = files.load(id);
  std::optional<Journal> journal;
  if (files.has_journal(id)) journal.emplace(files.journal(id));
  // A journal without its record (it was lost, or could not be written) is undone all the same.
  if (!record) {
    record.emplace();
    record->job_id = id;
    record->started_at = format_utc(clock.now());
  }
  if (record->method.empty() && journal && journal->find(kJobStep)) {
    const JsonDocument step = parse_json(journal->find(kJobStep)->data, "journal step job");
    record->method = JsonReader(step, "job", Code::internal).string("method");
  }
  const bool was_running = !record->ended();
  std::optional<std::string> result;
  Recovery recovery;
  if (journal && record->state != JobState::succeeded && has_work_to_undo(*journal)) {
    RecoveryContext context(*journal, record->warnings);
    result = journaled_result(*journal);
    recovery = recover(record->method, context);
    // Nobody was told yet that it has failed; an ended one stays what its caller heard.
    if (was_running && recovery.result) result = recovery.result;
  }
  if (result) {
    record->state = JobState::succeeded;
    record->result = result;
    record->error.reset();
  } else if (was_running) {
    record->state = JobState::failed;
    const std::string done = !recovery.what.empty() ? recovery.what
                             : journal              ? "there was nothing to undo"
                                                    : "it had changed nothing";
    record->error = write_rpc_error(Error(Code::unavailable,
                                          record->method + ": the agent ended while the job ran; recovered: " + done +
                                              (recovery.left.empty() ? "" : "; " + recovery.left),
                                          "call it again with a new job_id"),
                                    id);
  }
  if (was_running) record->finished_at = format_utc(clock.now());
  if (!was_running && !recovery.what.empty()) record->warnings.push_back("later: " + recovery.what);
  // The record before the journal, as in finish(): a crash between the two only repeats what is idempotent.
  files.save(*record);
  if (journal && recovery.left.empty()) journal->close();
  std::error_code ignored;
  fs::remove(files.cancel(id), ignored);
  fs::remove(files.owner(id), ignored);
  log_info("recovered a job that died", {{"method", record->method},
                                         {"state", to_string(record->state)},
                                         {"done", recovery.what},
                                         {"left", recovery.left}});
  return recovery.left;
}

void Jobs::State::prune() {
  files.sweep();
  const WallTime oldest = clock.now() - std::chrono::hours(24 * settings.job_history_days);
  for (const std::string& id : files.ids()) {
    const std::optional<JobRecord> record = files.load(id);
    // With a journal something is still to be undone, and its record is who hears of it.
    if (!record || !record->ended() || files.has_journal(id)) continue;
    try {
      if ((record->finished_at ? parse_utc(*record->finished_at) : files.modified(id)) < oldest) files.remove(id);
    } catch (const Error& e) {
      log_warning("old job record cannot be dropped", {{"job", id}, {"error", e.what()}});
    }
  }
}

// Without waiting for the lock: who holds it changes the host now, and has recovered before that.
void Jobs::State::recover_if_needed() {
  if (dead_jobs().empty()) return;
  const auto lock = FileLock::try_take(files.host_lock(), write_holder("", "recovery"));
  if (lock) recover_dead();
}

}  // namespace guestagent

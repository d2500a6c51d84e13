// The records of jobs and the files that they are kept in.
//
// Below `<state_dir>/jobs` (mode 0700), each file 0600 since results hold a password: `<job_id>.json` is the
// record, `<job_id>.journal` what a restarted agent finishes or undoes it from, `<job_id>.owner` is locked by
// the process that runs it, and `<job_id>.cancel` asks that process to stop.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/enum_text.h"
#include "base/file.h"

namespace guestagent {

enum class JobKind {
  changing,  // one at a time on a host
  reading,   // changes nothing here; one of a method at a time, in one process
  waiting,   // as reading, but any number at a time: it takes nothing of the host
};

enum class JobState { running, succeeded, failed, cancelled };

// Their names in the RPC contract, in the records and in metrics.
inline constexpr EnumTexts<JobKind, 3> kJobKinds = {{"changing", "reading", "waiting"}};
inline constexpr EnumTexts<JobState, 4> kJobStates = {{"running", "succeeded", "failed", "cancelled"}};
inline std::string to_string(JobState state) {
  return std::string(kJobStates.text(state));
}

// Of the phase, not of the whole job.
struct JobProgress {
  std::uint64_t done_bytes = 0;
  std::optional<std::uint64_t> total_bytes;
  double rate = 0;                     // bytes per second, over the last seconds
  std::optional<std::uint64_t> eta_s;  // seconds; absent where nobody can tell
};

struct JobRecord {
  std::string job_id, method;
  JobKind kind = JobKind::changing;
  std::string params_digest;  // sha256 of the params, to tell a repeat from another job
  JobState state = JobState::running;
  std::string phase;       // a word or two; "" before the first
  std::string started_at;  // UTC, as format_utc writes it
  std::optional<std::string> finished_at;
  JobProgress progress;
  std::optional<std::string> snapshot_href;  // of the snapshot that it makes, once that is claimed
  std::vector<std::string> warnings;
  std::optional<std::string> result;  // JSON text
  std::optional<std::string> error;   // JSON text: an RPC error object

  bool ended() const { return state != JobState::running; }
};

// The record as the RPC contract has it. Without its result where many may read it: a result can hold a
// password.
std::string write_job(const JobRecord& record, bool with_result = true);
// `{done_bytes, total_bytes?, rate, eta_s?}`
std::string write_progress(const JobProgress& progress);

// All methods throw Error and may be called from any thread and process at once, but that a record has one
// writer: the owner of its job.
class JobFiles {
 public:
  explicit JobFiles(const fs::path& state_dir) : dir_(state_dir / "jobs"), state_dir_(state_dir) {}

  // Both of the above, where they are not there.
  void make_dirs();
  // Durable. False when there is a record of that id already.
  bool create(const JobRecord& record);
  // In place of the one that is there; durable.
  void save(const JobRecord& record);
  // nullopt when there is none. A record that cannot be understood is logged and answered as a failed job
  // with INTERNAL.
  std::optional<JobRecord> load(const std::string& job_id) const;
  // Of all records and of journals that have none, sorted.
  std::vector<std::string> ids() const;
  // False too where the owner's process has died.
  bool has_owner(const std::string& job_id) const;
  bool has_journal(const std::string& job_id) const;
  WallTime modified(const std::string& job_id) const;  // when its record was; the epoch where there is none
  // The record and all that belongs to it but the owner's lock, which is the owner's to let go.
  void remove(const std::string& job_id);

  // Removes what crashes while writing have left, once it is an hour old.
  void sweep();

  fs::path record(const std::string& job_id) const { return dir_ / (job_id + ".json"); }
  fs::path journal(const std::string& job_id) const { return dir_ / (job_id + ".journal"); }
  fs::path cancel(const std::string& job_id) const { return dir_ / (job_id + ".cancel"); }
  fs::path owner(const std::string& job_id) const { return dir_ / (job_id + ".owner"); }
  fs::path host_lock() const { return state_dir_ / "lock"; }

 private:
  fs::path dir_, state_dir_;
};

}  // namespace guestagent

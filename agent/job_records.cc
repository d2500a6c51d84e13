#include "agent/job_records.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/secret.h"

namespace guestagent {
namespace {

constexpr std::size_t kMaxRecordBytes = std::size_t{16} << 20;

void write_members(JsonWriter& out, const JobRecord& record, bool with_result) {
  out.member("job_id", record.job_id).member("method", record.method).member("state", to_string(record.state));
  out.member("phase", record.phase).member("started_at", record.started_at);
  if (record.finished_at) out.member("finished_at", *record.finished_at);
  out.key("progress").raw(write_progress(record.progress));
  if (record.snapshot_href) out.member("snapshot_href", *record.snapshot_href);
  if (!record.warnings.empty()) {
    out.key("warnings").begin_array();
    for (const std::string& warning : record.warnings) out.value(warning);
    out.end_array();
  }
  if (with_result && record.result) out.key("result").raw(*record.result);
  if (record.error) out.key("error").raw(*record.error);
}

std::string file_text(const JobRecord& record) {
  JsonWriter out;
  out.begin_object();
  out.member("kind", kJobKinds.text(record.kind));
  out.member("params_digest", record.params_digest);
  write_members(out, record, true);
  out.end_object();
  return out.text() + "\n";
}

JobRecord parse_record(const std::string& text, const std::string& job_id) {
  const JsonDocument document = parse_json(text, "job record");
  const JsonReader in(document, "record", Code::internal);
  JobRecord record;
  record.job_id = in.string("job_id");
  if (record.job_id != job_id) throw in.error("job_id", "is not the file's name");
  record.kind = kJobKinds.read(in, "kind");
  record.method = in.string("method");
  record.params_digest = in.string("params_digest");
  record.state = kJobStates.read(in, "state");
  record.phase = in.opt_string("phase").value_or("");
  record.started_at = in.string("started_at");
  record.finished_at = in.opt_string("finished_at");
  const JsonReader progress = in.object("progress");
  record.progress.done_bytes = progress.uint("done_bytes");
  record.progress.total_bytes = progress.opt_uint("total_bytes");
  record.progress.rate = progress.opt_number("rate").value_or(0);
  record.progress.eta_s = progress.opt_uint("eta_s");
  record.snapshot_href = in.opt_string("snapshot_href");
  record.warnings = in.strings("warnings");
  if (document.HasMember("result")) record.result = to_json(document["result"]);
  if (in.has("error")) record.error = to_json(in.object("error").value());
  return record;
}

JobRecord unreadable(const std::string& job_id, WallTime when, const std::string& why) {
  JobRecord record;
  record.job_id = job_id;
  record.state = JobState::failed;
  record.started_at = record.finished_at.emplace(format_utc(when));
  JsonWriter out;
  const CodeRow& row = code_row(Code::internal);
  out.begin_object().member("code", row.rpc).member("message", "the record of this job cannot be read: " + why);
  out.key("data").begin_object().member("code", row.wire);
  out.member("hint", "its file was damaged; what the job did is in the log").member("job_id", job_id);
  out.end_object().end_object();
  record.error = out.text();
  return record;
}

bool is_there(const fs::path& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0;
}

void unlink_if_there(const fs::path& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw system_error("remove " + path.string(), errno);
}

}  // namespace

std::string write_progress(const JobProgress& progress) {
  JsonWriter out;
  out.begin_object().member("done_bytes", progress.done_bytes);
  if (progress.total_bytes) out.member("total_bytes", *progress.total_bytes);
  out.member("rate", progress.rate);
  if (progress.eta_s) out.member("eta_s", *progress.eta_s);
  out.end_object();
  return out.text();
}

std::string write_job(const JobRecord& record, bool with_result) {
  JsonWriter out;
  out.begin_object();
  write_members(out, record, with_result);
  out.end_object();
  return out.text();
}

void JobFiles::make_dirs() {
  if (!is_there(state_dir_)) make_dir(state_dir_, 0700);
  make_dir(dir_, 0700);
}

bool JobFiles::create(const JobRecord& record) {
  // A link appears whole or not at all, and only where there was nothing.
  const fs::path fresh = dir_ / (".new-" + random_hex(8));
  write_file_atomic(fresh, file_text(record), 0600);
  const int failed = ::link(fresh.c_str(), this->record(record.job_id).c_str()) == 0 ? 0 : errno;
  unlink_if_there(fresh);
  if (failed == EEXIST) return false;
  if (failed != 0) throw system_error("create " + this->record(record.job_id).string(), failed);
  fsync_dir(dir_);
  return true;
}

void JobFiles::save(const JobRecord& record) {
  write_file_atomic(this->record(record.job_id), file_text(record), 0600);
}

std::optional<JobRecord> JobFiles::load(const std::string& job_id) const {
  if (!valid_id(job_id)) throw Error(Code::invalid_argument, "job_id: " + std::string(kIdRule));
  try {
    return parse_record(read_file(record(job_id), kMaxRecordBytes), job_id);
  } catch (const Error& e) {
    if (e.code() == Code::permission_denied) throw;
    if (e.code() == Code::not_found) return std::nullopt;  // also when it has appeared since
    log_error("job record cannot be read", {{"job", job_id}, {"error", e.what()}});
    return unreadable(job_id, modified(job_id), e.what());
  }
}

std::vector<std::string> JobFiles::ids() const {
  std::set<std::string> found;
  std::error_code failed;
  for (fs::directory_iterator it(dir_, failed), end; !failed && it != end; it.increment(failed)) {
    const fs::path& path = it->path();
    if (path.extension() != ".json" && path.extension() != ".journal") continue;
    if (valid_id(path.stem().string())) found.insert(path.stem().string());
  }
  if (failed && failed.value() != ENOENT) throw system_error("list " + dir_.string(), failed.value());
  return {found.begin(), found.end()};
}

bool JobFiles::has_owner(const std::string& job_id) const {
  return FileLock::is_taken(owner(job_id));
}

bool JobFiles::has_journal(const std::string& job_id) const {
  return is_there(journal(job_id));
}

WallTime JobFiles::modified(const std::string& job_id) const {
  struct stat info {};
  if (::stat(record(job_id).c_str(), &info) != 0) return {};
  return WallTime(std::chrono::seconds(info.st_mtim.tv_sec));
}

void JobFiles::remove(const std::string& job_id) {
  unlink_if_there(journal(job_id));
  unlink_if_there(cancel(job_id));
  unlink_if_there(record(job_id));
}

void JobFiles::sweep() {
  std::error_code failed;
  const auto old = fs::file_time_type::clock::now() - std::chrono::hours(1);
  for (fs::directory_iterator it(dir_, failed), end; !failed && it != end; it.increment(failed)) {
    std::error_code gone;
    if (it->path().filename().native().front() == '.' && fs::last_write_time(it->path(), gone) < old && !gone) {
      fs::remove(it->path(), gone);
    }
  }
}

}  // namespace guestagent

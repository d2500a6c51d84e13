#include "agent/metrics.h"

#include <map>

#include "net/metrics_text.h"

namespace guestagent {
namespace {

void write_jobs(MetricsText& out, Jobs& jobs) {
  std::map<std::pair<std::string, std::string>, std::pair<unsigned, double>> ended;  // number, time of the last
  const std::vector<JobRecord> records = jobs.list();
  // Added up: jobs of one method may run, and wait, at the same time.
  std::map<std::pair<std::string, std::string>, unsigned> running;
  std::map<std::string, double> done;
  for (const JobRecord& record : records) {
    if (!record.ended()) {
      ++running[{record.method, record.phase}];
      done[record.method] += double(record.progress.done_bytes);
      continue;
    }
    auto& [count, last] = ended[{record.method, to_string(record.state)}];
    ++count;
    if (record.finished_at)
      last = std::max(last, double(std::chrono::system_clock::to_time_t(parse_utc(*record.finished_at))));
  }
  out.family("guestagent_job_running", "gauge", "Jobs that run now, by method and phase.");
  for (const auto& [key, count] : running) out.sample({{"method", key.first}, {"phase", key.second}}, count);
  out.family("guestagent_job_done_bytes", "gauge", "Bytes done in the phases of the running jobs of that method.");
  for (const auto& [method, bytes] : done) out.sample({{"method", method}}, bytes);
  out.family("guestagent_jobs", "gauge", "Jobs that have ended, of those whose record is kept.");
  for (const auto& [key, value] : ended) out.sample({{"method", key.first}, {"state", key.second}}, value.first);
  out.family("guestagent_job_last_end_timestamp_seconds", "gauge", "When the last such job ended.");
  for (const auto& [key, value] : ended) out.sample({{"method", key.first}, {"state", key.second}}, value.second);
}

void write_replication(MetricsText& out, const ReplicationStatus& status) {
  out.family("guestagent_replication_verdict", "gauge", "1 for the verdict of get_replication_status.");
  for (const std::string_view each : kReplicationVerdicts.texts)
    out.sample({{"verdict", each}}, each == to_string(status.verdict) ? 1 : 0);
  if (status.lag_seconds) {
    out.family("guestagent_replication_lag_seconds", "gauge", "How far the replica is behind its source.");
    out.sample({}, *status.lag_seconds);
  }
  if (status.lag_transactions) {
    out.family("guestagent_replication_lag_transactions", "gauge",
               "Transactions of the source that are not applied here.");
    out.sample({}, double(*status.lag_transactions));
  }
  for (const ReplicationStatus::Thread& thread : status.threads) {
    out.family("guestagent_replication_" + thread.name + "_running", "gauge",
               "1 when that thread of the replica runs.");
    out.sample({}, thread.running() ? 1 : 0);
  }
  if (status.read_only) {
    out.family("guestagent_replication_read_only", "gauge", "1 when the server is read only.");
    out.sample({}, *status.read_only ? 1 : 0);
  }
  if (status.threads.empty()) return;
  out.family("guestagent_replication_errant", "gauge",
             "1 when there are transactions here that the source does not have.");
  out.sample({}, status.errant.empty() ? 0 : 1);
  for (const ReplicationStatus::Number& number : status.numbers) {
    out.family("guestagent_replication_" + number.name, "gauge", number.help);
    out.sample({}, double(number.value));
  }
}

}  // namespace

std::string render_metrics(Jobs& jobs, const Dispatcher& dispatcher, const ReplicationStatus& status) {
  MetricsText out;
  out.family("guestagent_info", "gauge", "The agent's version.");
  out.sample({{"version", GUESTAGENT_VERSION}}, 1);
  write_jobs(out, jobs);
  write_replication(out, status);
  out.family("guestagent_rpc_requests_total", "counter", "Calls answered since the start, by method and code.");
  for (const auto& [key, count] : dispatcher.counts())
    out.sample({{"method", key.first}, {"code", key.second}}, double(count));
  return out.take();
}

}  // namespace guestagent

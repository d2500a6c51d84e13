#include "controller/live.h"

#include <cmath>

namespace guestagent::controller {

std::uint64_t Live::begin_look(const std::string& instance_id) {
  std::lock_guard lock(mutex_);
  return ++instances_[instance_id].newest_look;
}

void Live::forget_status(const std::string& instance_id) {
  {
    std::lock_guard lock(mutex_);
    Seen& seen = instances_[instance_id];
    ++seen.newest_look;
    seen.status = LiveStatus{};
  }
  if (on_instance) on_instance(instance_id);
}

bool Live::set_status(const std::string& instance_id, LiveStatus status, std::optional<std::uint64_t> look) {
  bool differs = false;
  {
    std::lock_guard lock(mutex_);
    Seen& seen = instances_[instance_id];
    if (look && *look < seen.newest_look) return false;
    // Tenths of seconds are what a reader can see.
    const auto shown = [](const LiveStatus& s) { return std::lround(s.lag_seconds.value_or(-1) * 10); };
    differs = seen.status.verdict != status.verdict || seen.status.reasons != status.reasons ||
              shown(seen.status) != shown(status) || seen.status.read_only != status.read_only;
    seen.lag.push_back(static_cast<float>(status.lag_seconds.value_or(-1)));
    while (seen.lag.size() > history_) seen.lag.pop_front();
    seen.status = std::move(status);
  }
  if (differs && on_instance) on_instance(instance_id);
  return true;
}

LiveStatus Live::status(const std::string& instance_id) const {
  std::lock_guard lock(mutex_);
  const auto found = instances_.find(instance_id);
  return found == instances_.end() ? LiveStatus{} : found->second.status;
}

std::vector<double> Live::lag_history(const std::string& instance_id) const {
  std::lock_guard lock(mutex_);
  const auto found = instances_.find(instance_id);
  if (found == instances_.end()) return {};
  return {found->second.lag.begin(), found->second.lag.end()};
}

void Live::forget_instance(const std::string& instance_id) {
  std::lock_guard lock(mutex_);
  instances_.erase(instance_id);
}

void Live::set_job(const std::string& task_id, int number, JobView view) {
  bool differs = false;
  {
    std::lock_guard lock(mutex_);
    JobView& seen = jobs_[{task_id, number}];
    differs = seen.phase != view.phase || seen.done_bytes != view.done_bytes || seen.note != view.note ||
              seen.job_id != view.job_id;
    seen = std::move(view);
  }
  if (differs && on_task) on_task(task_id);
}

void Live::clear_jobs(const std::string& task_id) {
  std::lock_guard lock(mutex_);
  jobs_.erase(jobs_.lower_bound({task_id, 0}), jobs_.upper_bound({task_id, 1 << 30}));
}

void Live::clear_job(const std::string& task_id, int number) {
  std::lock_guard lock(mutex_);
  jobs_.erase({task_id, number});
}

std::optional<JobView> Live::job(const std::string& task_id, int number) const {
  std::lock_guard lock(mutex_);
  const auto found = jobs_.find({task_id, number});
  return found == jobs_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace guestagent::controller

// A job for code that needs one: its journal in a temporary directory, its progress and warnings kept.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "base/job_context.h"

namespace guestagent::test {

class TestJob : public JobContext {
 public:
  std::stop_token stop_token() const override { return stop_.get_token(); }
  void phase(std::string_view name) override {
    const std::lock_guard lock(mutex_);
    phases_.emplace_back(name);
  }
  void progress(std::uint64_t done, std::optional<std::uint64_t> total) override {
    const std::lock_guard lock(mutex_);
    went_back_ = went_back_ || done < done_;
    done_ = done;
    total_ = total;
  }
  void warn(std::string_view message) override {
    const std::lock_guard lock(mutex_);
    warnings_.emplace_back(message);
  }
  Journal& journal() override { return journal_; }

  void cancel() { stop_.request_stop(); }
  std::uint64_t done() const {
    const std::lock_guard lock(mutex_);
    return done_;
  }
  std::optional<std::uint64_t> total() const {
    const std::lock_guard lock(mutex_);
    return total_;
  }
  bool went_back() const {
    const std::lock_guard lock(mutex_);
    return went_back_;
  }
  std::vector<std::string> warnings() const {
    const std::lock_guard lock(mutex_);
    return warnings_;
  }
  const fs::path& dir() const { return dir_.path(); }

 private:
  TempDir dir_{"/tmp", "guestagent-job-"};
  Journal journal_{dir_.path() / "journal"};
  std::stop_source stop_;
  mutable std::mutex mutex_;
  std::vector<std::string> phases_, warnings_;
  std::uint64_t done_ = 0;
  std::optional<std::uint64_t> total_;
  bool went_back_ = false;
};

}  // namespace guestagent::test

// A job without an agent around it: what it was told is kept for the test to look at.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/job_context.h"

namespace guestagent::test {

class FakeJob : public JobContext {
 public:
  explicit FakeJob(const fs::path& journal) : journal_(journal) {}

  std::stop_token stop_token() const override { return stop_.get_token(); }
  void cancel() { stop_.request_stop(); }

  void phase(std::string_view name) override {
    const std::scoped_lock lock(mutex_);
    phases_.emplace_back(name);
  }
  void progress(std::uint64_t done, std::optional<std::uint64_t> total) override {
    const std::scoped_lock lock(mutex_);
    done_ = done;
    total_ = total;
  }
  void warn(std::string_view message) override {
    const std::scoped_lock lock(mutex_);
    warnings_.emplace_back(message);
  }
  Journal& journal() override { return journal_; }

  std::vector<std::string> phases() const {
    const std::scoped_lock lock(mutex_);
    return phases_;
  }
  std::vector<std::string> warnings() const {
    const std::scoped_lock lock(mutex_);
    return warnings_;
  }
  std::uint64_t done() const {
    const std::scoped_lock lock(mutex_);
    return done_;
  }

 private:
  std::stop_source stop_;
  mutable std::mutex mutex_;
  std::vector<std::string> phases_, warnings_;
  std::uint64_t done_ = 0;
  std::optional<std::uint64_t> total_;
  Journal journal_;
};

}  // namespace guestagent::test

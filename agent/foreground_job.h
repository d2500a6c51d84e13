// A JobContext without a record: for `guestagent cat` and `restore`, and for looking at a store in a dry run.
#pragma once

#include <functional>
#include <mutex>
#include <optional>

#include "agent/job_records.h"
#include "base/job_context.h"

namespace guestagent {

class ForegroundJob final : public JobContext {
 public:
  // `observer` may be empty. The journal, should anybody want one, is a temporary file.
  explicit ForegroundJob(std::stop_token stop = {}, std::function<void(const JobRecord&)> observer = {});

  std::stop_token stop_token() const override { return stop_; }
  void phase(std::string_view name) override;
  void progress(std::uint64_t done, std::optional<std::uint64_t> total) override;
  void warn(std::string_view message) override;
  Journal& journal() override;

 private:
  void tell();
  std::stop_token stop_;
  std::function<void(const JobRecord&)> observer_;
  std::mutex mutex_;  // guards the three below
  JobRecord record_;
  SteadyTime phase_began_;
  SteadyTime told_;
  std::optional<TempDir> dir_;
  std::optional<Journal> journal_;
};

}  // namespace guestagent

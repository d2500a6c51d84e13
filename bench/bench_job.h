// A job that nobody watches.
#pragma once

#include "base/job_context.h"
#include "base/log.h"

namespace guestagent::bench {

class BenchJob : public JobContext {
 public:
  std::stop_token stop_token() const override { return {}; }
  void phase(std::string_view) override {}
  void progress(std::uint64_t, std::optional<std::uint64_t>) override {}
  void warn(std::string_view message) override { log_warning(message); }
  Journal& journal() override { return journal_; }

 private:
  TempDir dir_{"/tmp", "guestagent-bench-"};
  Journal journal_{dir_.path() / "journal"};
};

}  // namespace guestagent::bench

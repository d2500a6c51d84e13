#include <unistd.h>

#include <cerrno>

#include "agent/app.h"
#include "agent/commands.h"
#include "agent/foreground_job.h"
#include "agent/progress_view.h"
#include "agent/signals.h"
#include "base/log.h"

namespace guestagent {
namespace {

class OutputSink final : public ByteSink {
 public:
  void write(Bytes data) override {
    while (!data.empty()) {
      const ssize_t n = ::write(STDOUT_FILENO, data.data(), data.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw system_error("write to standard output", errno);
      data = data.subspan(static_cast<std::size_t>(n));
    }
  }
  void finish() override {}
};

}  // namespace

int run_cat(const CommandLine& line) {
  if (::isatty(STDOUT_FILENO) == 1) {
    throw Error(Code::invalid_argument, "cat: standard output is a terminal, and a snapshot is no text",
                "send it somewhere: guestagent cat HREF | mbstream -x -C DIR");
  }
  hold_signals();
  Settings settings = load_settings(line.config, store_sections());
  settings.snapshot.encryption.allow_plain |= line.allow_plain;
  log_setup(line.verbose ? settings.agent.log_level : LogLevel::warning, settings.agent.log_format);
  App app(std::move(settings), false);
  ProgressView view(STDERR_FILENO, ::isatty(STDERR_FILENO) == 1);
  std::stop_source stop;
  const SignalWatch watch([&](int) { stop.request_stop(); });
  ForegroundJob job(stop.get_token(), [&](const JobRecord& record) { view.show(record); });
  OutputSink out;
  app.operations.cat(line.href, out, job);
  return 0;
}

}  // namespace guestagent

#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "agent/app.h"
#include "agent/commands.h"
#include "agent/progress_view.h"
#include "agent/signals.h"
#include "base/log.h"

namespace guestagent {

int run_oneshot(const CommandLine& line) {
  hold_signals();
  check_result_can_be_written();
  const std::string params = read_params(line.params);
  Settings settings = load_settings(line.config, store_sections());
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  // On a terminal the progress line says what the log would.
  const bool quiet = terminal && !line.verbose && settings.agent.log_level == LogLevel::info;
  log_setup(quiet ? LogLevel::warning : settings.agent.log_level, settings.agent.log_format);

  ProgressView view(STDERR_FILENO, terminal);
  App app(std::move(settings), false, [&](const JobRecord& record) { view.show(record); });
  bool asked = false;
  const SignalWatch watch([&](int signal) {
    if (signal == SIGHUP && !terminal) return;
    if (asked) ::_exit(128 + signal);  // the journal has it: the next one cleans up
    asked = true;
    view.end();
    std::fputs("cancelling, and undoing what was done; a second time ends at once\n", stderr);
    app.jobs.shut_down();
  });
  const std::string result = app.dispatcher.call(line.method, params);
  view.end();
  print_result(result);
  return 0;
}

}  // namespace guestagent

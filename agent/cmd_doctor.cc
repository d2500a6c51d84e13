#include <algorithm>
#include <cstdio>

#include "agent/app.h"
#include "agent/commands.h"
#include "agent/host_checks.h"
#include "agent/host_report.h"
#include "agent/plans.h"
#include "base/log.h"

namespace guestagent {
namespace {

// A person waits: a store that is down is to be told of at once.
constexpr unsigned kTries = 2;

Check skipped(std::string name, std::string why) {
  return {std::move(name), Check::Result::skipped, std::move(why), "", Code::internal};
}

// Each mistake of the file is a check of its own.
std::vector<Check> mistakes(const std::string& name, const Error& error) {
  std::vector<Check> out;
  const std::string text = error.what();
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) out.push_back({name, Check::Result::failed, text.substr(at, end - at), error.hint(), error.code()});
    at = end + 1;
  }
  return out;
}

void examine(const Settings& read, HostReport& report) {
  report.add(check_own_rights(read));
  report.add(check_named_files(read));
  if (!report.ok()) {
    // Without its secrets nothing can be connected to.
    report.add(skipped("server", "the files above come first"));
    report.add(skipped("store", "the files above come first"));
    report.add(check_clock());
    return;
  }
  Settings settings = read;
  settings.storage.retry.tries = std::min(settings.storage.retry.tries, kTries);
  App app(std::move(settings), false);
  const ServerDescription server = app.parts.datastore->describe();
  report.add(check_answers(server, host_needs(app.settings)));
  for (Check& check : check_host(app.settings)) {
    // What an unreachable server cannot tell is told once.
    const bool asked_it = check.name == "account's rights" || check.name == "restore tools";
    report.add(!server.reachable && asked_it ? skipped(check.name, "the server does not answer") : std::move(check));
  }
  if (server.reachable) {
    // A host that is to become a replica need not be fit for a source.
    report.add_mild(app.parts.datastore->plan_snapshot({"doctor"}).checks);
  } else {
    report.add(skipped("server settings", "the server does not answer"));
  }
  report.add(check_store_round_trip(app.settings, *app.store));
  report.add(check_space(app.settings, server));
  report.add(check_clock());
}

}  // namespace

int run_doctor(const CommandLine& line) {
  log_setup(LogLevel::error, LogFormat::logfmt);
  HostReport report;
  std::optional<Settings> settings;
  try {
    settings = load_settings(line.config, store_sections());
    report.add({"config", Check::Result::ok, line.config.string() + " is well", "", Code::internal});
  } catch (const Error& e) {
    report.add(mistakes("config", e));
    report.add(skipped("host", "the configuration comes first"));
  }
  try {
    if (settings) examine(*settings, report);
  } catch (const std::exception& e) {
    report.add(mistakes("host", to_error(e)));
  }
  if (line.json) {
    print_result(report.json());
  } else {
    std::fputs(report.text().c_str(), stdout);
    if (std::fflush(stdout) != 0) throw system_error("write to standard output", errno);
  }
  return report.exit_status();
}

}  // namespace guestagent

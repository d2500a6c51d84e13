#include <unistd.h>

#include <cstdio>

#include "agent/app.h"
#include "agent/commands.h"
#include "agent/host_checks.h"
#include "agent/host_report.h"
#include "agent/plans.h"
#include "agent/progress_view.h"
#include "base/log.h"
#include "storage/snapshots.h"

namespace guestagent {
namespace {

// Prints each check as it is made; keeps the first failure.
class Report {
 public:
  void add(const Check& check) {
    std::fputs(check_lines(check).c_str(), stdout);
    std::fflush(stdout);
    if (check.result == Check::Result::failed && status_ == 0) status_ = code_row(check.code).exit_status;
  }
  void note(const std::string& text) { std::printf("\n%s\n", text.c_str()); }
  int status() const { return status_; }

 private:
  int status_ = 0;
};

void check_state_dir(const Settings& settings, Report& report) {
  const fs::path& dir = settings.agent.state_dir;
  report.add(check_by("state", "jobs are kept in " + dir.string(), [&] {
    fs::path there = fs::absolute(dir);
    while (!fs::exists(there) && there.has_relative_path()) there = there.parent_path();
    if (::access(there.c_str(), W_OK | X_OK) != 0) throw system_error("write to " + there.string(), errno);
  }));
}

void check_store(App& app, Report& report) {
  constexpr std::string_view kProbe = "guestagent-check/manifest.json";
  std::string root = app.store->href(kProbe);
  if (root.ends_with(kProbe)) root.resize(root.size() - kProbe.size());
  report.add(check_by("store", app.settings.storage.store + " store at " + root + " answers",
                      [&] { app.store->stat(kProbe, {}); }));
  const SnapshotSettings& snapshot = app.settings.snapshot;
  const std::string key = snapshot.encryption.write_key;
  report.add({"snapshots",
              Check::Result::ok,
              "compressed with " + snapshot.compression + ", " +
                  (key.empty() ? "not encrypted" : "encrypted with key " + key) + ", segments of " +
                  human_bytes(snapshot.segment_bytes) + ", at most " + human_bytes(snapshot.memory_limit) +
                  " of memory",
              {},
              Code::internal});
}

bool check_server(const ServerDescription& server, const HostNeeds& needs, Report& report) {
  report.add(check_answers(server, needs));
  report.add({"address",
              Check::Result::ok,
              "replicas connect to " + needs.address + ":" + std::to_string(server.port),
              {},
              Code::internal});
  std::string tools;
  for (const auto& [name, version] : server.tools) tools += (tools.empty() ? "" : ", ") + name + " " + version;
  Check found{"tools", tools.empty() ? Check::Result::failed : Check::Result::ok,
              tools.empty() ? "no backup tool was found" : tools, tools.empty() ? needs.no_tools_hint : std::string(),
              Code::not_found};
  report.add(found);
  return server.reachable;
}

}  // namespace

int run_check_config(const CommandLine& line) {
  log_setup(LogLevel::error, LogFormat::logfmt);
  Settings settings = load_settings(line.config, store_sections());
  Report report;
  report.add({"config", Check::Result::ok, line.config.string() + " is well", {}, Code::internal});
  if (line.syntax_only) return report.status();
  App app(std::move(settings), false);
  check_state_dir(app.settings, report);
  report.add(check_places_apart(app.settings));
  check_store(app, report);
  const bool reachable = check_server(app.parts.datastore->describe(), host_needs(app.settings), report);
  for (const Check& check : check_config(app.settings)) report.add(check);
  if (reachable) {
    report.note("As the source of a snapshot:");
    for (Check check : app.parts.datastore->plan_snapshot({"check-config"}).checks) {
      // A host that is to become a replica need not be fit for a source.
      if (check.result == Check::Result::failed) check.result = Check::Result::warning;
      report.add(check);
    }
  }
  return report.status();
}

}  // namespace guestagent

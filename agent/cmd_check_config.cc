#include <unistd.h>

#include <algorithm>
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

bool check_server(const ServerDescription& server, const Settings& settings, Report& report) {
  Check check =
      check_by("server", server.datastore_version + " answers, server_id " + std::to_string(server.server_id), [&] {
        if (server.reachable) return;
        throw Error(Code::unavailable, "the server does not answer: " + server.unreachable_because,
                    "is it running? see mysql.socket, mysql.user and mysql.password_file");
      });
  report.add(check);
  report.add({"address",
              Check::Result::ok,
              "replicas connect to " + settings.mysql.advertised_address + ":" + std::to_string(server.port),
              {},
              Code::internal});
  std::string tools;
  for (const auto& [name, version] : server.tools) tools += (tools.empty() ? "" : ", ") + name + " " + version;
  Check found{"tools", tools.empty() ? Check::Result::failed : Check::Result::ok,
              tools.empty() ? "no backup tool was found" : tools,
              tools.empty() ? "install mariadb-backup (or xtrabackup for MySQL), or set mysql.tools_dir" : "",
              Code::not_found};
  report.add(found);
  return server.reachable;
}

// The managed file works only where the server reads it: after all else, from a directory that its own option
// file includes.
void check_managed_file(const MysqlSettings& mysql, Report& report) {
  report.add(check_by("managed file", mysql.managed_file.string() + " is read by the server", [&] {
    const fs::path dir = mysql.managed_file.parent_path();
    std::vector<fs::path> files = {mysql.defaults_file};
    std::vector<std::string> seen;
    while (!files.empty()) {
      const fs::path file = files.back();
      files.pop_back();
      if (std::find(seen.begin(), seen.end(), file.string()) != seen.end()) continue;
      seen.push_back(file.string());
      const std::string text = read_file(file);
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        std::string line = text.substr(at, end - at);
        at = end + 1;
        line.erase(0, line.find_first_not_of(" \t"));
        line.erase(line.find_last_not_of(" \t\r") + 1);
        for (const std::string_view word : {"!includedir", "!include"}) {
          if (!line.starts_with(word) || line.size() == word.size() ||
              (line[word.size()] != ' ' && line[word.size()] != '\t'))
            continue;
          const fs::path named = line.substr(line.find_first_not_of(" \t", word.size()));
          if (word == "!include") {
            if (named.lexically_normal() == mysql.managed_file.lexically_normal()) return;
            files.push_back(named);
          } else {
            if ((named / "").lexically_normal() == (dir / "").lexically_normal()) return;
          }
        }
      }
    }
    throw Error(Code::failed_precondition,
                mysql.managed_file.string() + ": " + mysql.defaults_file.string() + " does not include its directory",
                "add \"!includedir " + dir.string() + "\" at its end, or set mysql.managed_file");
  }));
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
  const bool reachable = check_server(app.parts.datastore->describe(), app.settings, report);
  check_managed_file(app.settings.mysql, report);
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

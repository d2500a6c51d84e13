#include "strategies/mysql/install/first_start.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "base/child.h"
#include "base/error.h"
#include "base/held_dir.h"
#include "base/log.h"
#include "strategies/mysql/host/detached.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/host/server_control.h"
#include "strategies/mysql/host/work_places.h"
#include "strategies/mysql/server/journal_steps.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kLongestSocket = 100;  // the kernel's limit is 107
constexpr Millis kReadyPoll{50};             // a child's end and a socket's greeting have no common wait

// Beside the data where the path is short enough for a socket.
fs::path choose_dir(const MysqlSettings& settings) {
  const fs::path beside = new_work_path(work_dir(settings.data_dir), "first");
  if ((beside / "s.sock").string().size() <= kLongestSocket) return beside;
  return new_work_path(fs::temp_directory_path(), "guestagent-first");
}

class PrivateServer {
 public:
  PrivateServer(const MysqlSettings& settings, const Dialect& dialect, const fs::path& dir, bool with_accounts,
                Clock& clock, JobContext& job)
      : settings_(settings), clock_(clock), job_(job), dir_(dir), child_(spec(dialect, with_accounts)) {
    const SteadyTime end = clock_.steady() + settings_.server.start_timeout;
    while (!greets(socket())) {
      job_.check_cancelled();
      if (const auto exit = child_.try_wait()) throw failure("it ended: " + exit->describe());
      if (clock_.steady() >= end) throw failure("it did not answer within mysql.server.start_timeout");
      clock_.sleep(kReadyPoll, job_.stop_token());
    }
  }

  fs::path socket() const { return dir_ / "s.sock"; }

  // In order, and waited for: the normal start must find no process on the data and a redo log that is applied. By a
  // signal, since no account is needed for that.
  void stop() {
    child_.kill_group(SIGTERM);
    const SteadyTime end = clock_.steady() + settings_.server.stop_timeout;
    for (;;) {
      if (const auto exit = child_.try_wait()) {
        if (!exit->ok()) throw failure("it did not end in order: " + exit->describe());
        return;
      }
      job_.check_cancelled();
      if (clock_.steady() >= end) throw failure("it did not end within mysql.server.stop_timeout");
      clock_.sleep(kReadyPoll, job_.stop_token());
    }
  }

 private:
  ChildSpec spec(const Dialect& dialect, bool with_accounts) {
    const fs::path options = dir_ / "my.cnf";
    const auto user = server_user(settings_);
    // The guard stands in the managed file, which therefore is left out. The directory is the server's user's.
    HeldDir(dir_).write("my.cnf", flatten_option_files(settings_.defaults_file, settings_.managed_file), 0600, user);
    std::vector<std::string> arguments = {
        "--skip-networking", "--skip-log-bin", "--event-scheduler=OFF", "--" + std::string(dialect.replica_option),
        "--read-only=OFF", "--loose-super-read-only=OFF", "--loose-mysqlx=OFF", "--loose-wsrep-on=OFF",
        "--loose-group-replication-start-on-boot=OFF",
        // The agent's account is made by a hash, which a plugin that judges passwords cannot judge.
        "--loose-strict-password-validation=OFF", "--loose-validate-password=OFF",
        // Accounts and replication could not be set right otherwise.
        "--loose-transaction-read-only=OFF", "--loose-tx-read-only=OFF", "--general-log=OFF", "--slow-query-log=OFF",
        "--socket=" + socket().string(), "--pid-file=" + (dir_ / "pid").string(),
        "--log-error=" + (dir_ / "error.log").string()};
    if (!dialect.private_option.empty()) arguments.emplace_back(dialect.private_option);
    if (!with_accounts) arguments.emplace_back("--skip-grant-tables");
    ChildSpec out;
    out.argv = server_argv(settings_, arguments, options);
    out.env = server_environment();
    out.run_as = user;
    return out;
  }

  Error failure(const std::string& why) const {
    std::string message = "starting the server privately on the restored data: " + why;
    std::vector<std::string> lines = last_lines_of(dir_ / "error.log", 5, {"ERROR", "error:", "unknown", "crypt"});
    if (lines.empty()) lines = child_.last_lines();
    bool keys = false;
    for (const std::string& line : lines) {
      message += " | " + line;
      keys = keys || line.find("crypt") != std::string::npos || line.find("keyring") != std::string::npos;
    }
    if (keys) {
      return Error(Code::failed_precondition, message,
                   "give this server the source's keys: the same key plugin or keyring component, with the same keys");
    }
    return Error(Code::internal, message, "the restored data or the server's options do not fit this server");
  }

  const MysqlSettings& settings_;
  Clock& clock_;
  JobContext& job_;
  const fs::path dir_;
  Child child_;
};

ConnectTarget agent_on(const MysqlSettings& settings, const fs::path& socket) {
  ConnectTarget target = local_target(settings);
  target.host.clear();
  target.socket = socket;
  target.tls = false;
  return target;
}

// With the agent's own rights: what it can do here it can do later.
void clear_inherited(const ConnectTarget& target) {
  ServerClient client(target);
  client.stop_replica();
  client.reset_replica_all();
  client.clear_gtid_start();
}

// The copy may well have the agent's account as it must be: images of one kind have the same. Then it stays as it is.
bool account_works(const ConnectTarget& target) {
  try {
    clear_inherited(target);
    return true;
  } catch (const Error& e) {
    if (e.code() != Code::permission_denied) throw;
    log_info("the copied accounts do not let the agent in", {{"why", e.what()}});
    return false;
  }
}

void run_upgrade(const fs::path& program, const fs::path& socket, JobContext& job) {
  ChildSpec spec;
  spec.argv = {program.string(),    "--no-defaults",
               "--protocol=socket", "--socket=" + socket.string(),
               "--user=root",       "--default-character-set=utf8mb4"};
  spec.on_line = [](std::string_view line) { log_debug("upgrade", {{"line", std::string(line)}}); };
  Child child(std::move(spec));
  const Child::Exit exit = child.wait(job.stop_token());
  if (exit.ok()) return;
  std::string message = "upgrading the system tables by " + program.string() + ": " + exit.describe();
  for (const std::string& line : child.last_lines()) message += " | " + line;
  throw Error(Code::internal, message, "the old data is put back; see whether the source's system tables are whole");
}

}  // namespace

DataMark first_start(const MysqlSettings& settings, const Dialect& dialect, const std::optional<fs::path>& upgrade,
                     const std::string& replication_user, Clock& clock, JobContext& job) {
  const fs::path dir = choose_dir(settings);
  job.journal().record(step::kFirstStart, step::write_place(step::kFirstStart, dir));
  // The server's user must be able to pass through to it.
  if (dir.parent_path() == work_dir(settings.data_dir)) make_work_dir(dir.parent_path());
  make_own_dir(dir, 0700);
  if (const auto user = server_user(settings)) give_dir(dir, user->first, user->second);
  if (upgrade) {
    job.phase("upgrade");
    // Without accounts: those of the source need not know anybody who may change system tables.
    PrivateServer server(settings, dialect, dir, false, clock, job);
    run_upgrade(*upgrade, server.socket(), job);
    server.stop();
    job.phase("first start");
  }
  bool works = false;
  DataMark mark;
  // Only where the copied accounts shut the agent out does a server run without any, and then only once.
  {
    PrivateServer server(settings, dialect, dir, true, clock, job);
    const ConnectTarget target = agent_on(settings, server.socket());
    works = account_works(target);
    if (works) mark = ServerClient(target).data_mark(replication_user);
    server.stop();
  }
  if (!works) {
    PrivateServer server(settings, dialect, dir, false, clock, job);
    const ConnectTarget target = agent_on(settings, server.socket());
    ServerClient(target).make_agent_account(target.user, "localhost", target.password);
    // From here on the server checks accounts again: this proves the new one.
    with_context("logging in by the agent's own account, just made", [&] {
      clear_inherited(target);
      mark = ServerClient(target).data_mark(replication_user);
    });
    server.stop();
  }
  remove_tree(dir);
  return mark;
}

void remove_first_start(Journal& journal) {
  for (const Journal::Step& each : journal.steps()) {
    if (each.name != step::kFirstStart) continue;
    remove_tree(step::read_place(each));
  }
}

}  // namespace guestagent::mysql

// The copy by mariadb-backup.
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/child.h"
#include "base/log.h"
#include "strategies/mysql/backup_copy.h"
#include "strategies/mysql/tool_info.h"
#include "strategies/mysql/tool_options.h"

namespace guestagent::mysql {
namespace {

constexpr int kPollMs = 200;
constexpr Millis kWatchEvery{500};

// What went wrong, in the tool's words, and what to do about it.
Error tool_error(const std::string& what, const std::vector<std::string>& lines) {
  std::string said;
  for (std::size_t i = lines.size() > 6 ? lines.size() - 6 : 0; i < lines.size(); ++i) {
    said += (said.empty() ? "" : " | ") + lines[i];
  }
  const auto has = [&](std::string_view words) {
    for (const std::string& line : lines) {
      if (line.find(words) != std::string::npos) return true;
    }
    return false;
  };
  const std::string message = "copying the server's data: mariadb-backup: " + what + ": " + said;
  if (has("Unable to obtain lock")) {
    return {Code::deadline_exceeded, message,
            "a query on the source holds a lock longer than mysql.lock_wait; end it, raise the limit, or try "
            "at a quieter time"};
  }
  if (has("Was only able to copy log") || has("log block numbers mismatch")) {
    return {Code::resource_exhausted, message,
            "the source wrote its redo log faster than the copy was taken away: a larger "
            "innodb_log_file_size, or a faster store"};
  }
  if (has("Access denied") || has("missing required privilege")) {
    return {Code::permission_denied, message, "the agent's account needs RELOAD, PROCESS and BINLOG MONITOR"};
  }
  if (has("No space left"))
    return {Code::resource_exhausted, message, "free space on the source's temporary directory"};
  return {Code::internal, message, "see the tool's lines in the agent's log"};
}

class MariadbBackup : public BackupCopy {
 public:
  MariadbBackup(const MysqlSettings& settings, BackupSpec spec, Clock& clock);
  ~MariadbBackup() override;

  std::size_t read(std::span<std::byte> into) override;
  Position position() const override { return position_; }
  std::string tool() const override { return "mariadb-backup " + spec_.tool.version; }
  std::string format() const override { return "xbstream"; }

 private:
  void hear(std::string_view line);
  void watch(const std::stop_token& stop);
  std::string frozen(ServerClient& client);
  void finish();

  const MysqlSettings& settings_;
  BackupSpec spec_;
  Clock& clock_;
  Position position_;
  bool ended_ = false;

  std::mutex mutex_;
  std::optional<Position> said_position_;            // guarded by mutex_
  std::optional<SteadyTime> commits_blocked_since_;  // guarded by mutex_
  std::string stopped_because_;                      // guarded by mutex_

  std::unique_ptr<Child> child_;
  std::jthread watchdog_;  // after child_: ends first
};

MariadbBackup::MariadbBackup(const MysqlSettings& settings, BackupSpec spec, Clock& clock)
    : settings_(settings), spec_(std::move(spec)), clock_(clock) {
  const fs::path options = spec_.work_dir / "options.cnf";
  write_file_atomic(options, tool_options(settings_, spec_.target, spec_.server, "mariadb-backup"), 0600);
  const fs::path info = spec_.work_dir / "info";
  make_dir(info, 0700);
  ChildSpec child;
  child.argv = {
      spec_.tool.path.string(),
      "--defaults-file=" + options.string(),
      "--backup",
      "--stream=xbstream",
      "--target-dir=" + (spec_.work_dir / "target").string(),
      "--extra-lsndir=" + info.string(),
      "--parallel=" + std::to_string(std::max(1U, settings_.backup_parallel)),
      "--ftwrl-wait-timeout=" + std::to_string(std::max<std::int64_t>(1, settings_.lock_wait.count() / 1000)),
      "--open-files-limit=1000000"};
  child.pipe_stdout = true;
  child.working_dir = spec_.work_dir.string();
  child.on_line = [this](std::string_view line) { hear(line); };
  child_ = std::make_unique<Child>(std::move(child));
  watchdog_ = std::jthread([this, tags = LogScope::current()](const std::stop_token& stop) {
    const LogScope scope(tags);
    watch(stop);
  });
}

MariadbBackup::~MariadbBackup() {
  watchdog_.request_stop();
  if (watchdog_.joinable()) watchdog_.join();
  // SIGTERM is blocked by the tool, which would run on to its end. When it is gone the server gives its locks
  // free by itself.
  child_.reset();
}

void MariadbBackup::hear(std::string_view line) {
  log_debug("backup tool", {{"line", std::string(line)}});
  const std::scoped_lock lock(mutex_);
  if (auto position = position_in_line(line)) said_position_ = std::move(position);
  if (line.find("Starting BACKUP STAGE BLOCK_COMMIT") != std::string_view::npos)
    commits_blocked_since_ = clock_.steady();
  if (line.find("All tables unlocked") != std::string_view::npos) commits_blocked_since_.reset();
}

// Why the source stands still because of the copy, or "".
std::string MariadbBackup::frozen(ServerClient& client) {
  const std::uint64_t limit =
      static_cast<std::uint64_t>(std::max<std::int64_t>(1, settings_.lock_wait.count() / 1000));
  {
    const std::scoped_lock lock(mutex_);
    if (commits_blocked_since_ && clock_.steady() - *commits_blocked_since_ > settings_.lock_wait) {
      return "it kept commits on the source waiting longer than " + std::to_string(limit) + " s";
    }
  }
  for (const Session& session : client.sessions()) {
    // The tool itself limits only the first stage's wait.
    if (session.user == spec_.target.user && session.info.starts_with("BACKUP STAGE") &&
        session.seconds > limit) {
      return "its " + session.info + " waited longer than " + std::to_string(limit) +
             " s for the queries of others";
    }
  }
  return {};
}

void MariadbBackup::watch(const std::stop_token& stop) {
  ConnectTarget target = spec_.target;
  target.read_timeout = Seconds(30);
  ServerClient client(std::move(target));
  bool warned = false;
  while (clock_.sleep(kWatchEvery, stop)) {
    std::string why;
    try {
      why = frozen(client);
    } catch (const Error& e) {
      // A server that does not answer the watchdog ends the tool's own connection too.
      if (!warned) spec_.warn(std::string("cannot see whether the copy holds up the source: ") + e.what());
      warned = true;
    }
    if (why.empty()) continue;
    {
      const std::scoped_lock lock(mutex_);
      stopped_because_ = why;
    }
    child_->kill_group(SIGKILL);
    return;
  }
}

std::size_t MariadbBackup::read(std::span<std::byte> into) {
  if (ended_ || into.empty()) return 0;
  for (;;) {
    if (spec_.stop.stop_requested()) {
      child_->kill_group(SIGKILL);
      throw Error(Code::cancelled, "copying the server's data: cancelled on request");
    }
    pollfd ready{child_->stdout_fd(), POLLIN, 0};
    const int count = ::poll(&ready, 1, kPollMs);
    if (count < 0 && errno != EINTR) throw system_error("reading the backup tool's stream", errno);
    if (count <= 0) continue;
    const ssize_t n = ::read(child_->stdout_fd(), into.data(), into.size());
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) throw system_error("reading the backup tool's stream", errno);
    if (n > 0) return static_cast<std::size_t>(n);
    finish();
    ended_ = true;
    return 0;
  }
}

void MariadbBackup::finish() {
  const Child::Exit exit = child_->wait(spec_.stop);
  const std::vector<std::string> lines = child_->last_lines();
  std::optional<Position> said;
  {
    const std::scoped_lock lock(mutex_);
    if (!stopped_because_.empty()) {
      throw Error(Code::deadline_exceeded,
                  "copying the server's data: mariadb-backup was stopped: " + stopped_because_,
                  "mysql.lock_wait is the limit; end the long query on the source, or try at a quieter time");
    }
    said = said_position_;
  }
  if (!exit.ok()) throw tool_error(exit.describe(), lines);
  if (lines.empty() || !says_completed(lines.back()))
    throw tool_error("it ended without saying that it completed", lines);

  const fs::path file = find_info_file(spec_.work_dir / "info", dialect_for(spec_.server.version).info_files);
  const std::string name = file.filename().string();
  const ToolInfo info = parse_tool_info(read_file(file), name);
  if (info.partial || info.incremental || info.compressed || info.encrypted) {
    throw Error(
        Code::failed_precondition,
        "copying the server's data: " + name + ": the copy is partial, incremental, compressed or encrypted",
        "remove such options from the [mariadb-backup] group of the server's option files");
  }
  const auto written = position_in_line(info.binlog_pos);
  if (!written)
    throw Error(Code::data_loss, "reading the backup's " + name + ": binlog_pos: missing or malformed",
                "take the copy again");
  if (!said || !(*said == *written)) {
    throw Error(Code::data_loss, "reading the backup's " + name + ": binlog_pos: not what the tool said",
                "take the copy again");
  }
  position_ = *written;
  // Nothing was ever written there: the set is empty, which is not the same as not known.
  if (!position_.gtid && spec_.server.gtid_on) position_.gtid = "";
}

}  // namespace

std::unique_ptr<BackupCopy> start_mariadb_backup(const MysqlSettings& settings, BackupSpec spec,
                                                 Clock& clock) {
  return std::make_unique<MariadbBackup>(settings, std::move(spec), clock);
}

}  // namespace guestagent::mysql

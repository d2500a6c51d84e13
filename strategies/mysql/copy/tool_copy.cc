#include "strategies/mysql/copy/tool_copy.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "strategies/mysql/copy/tool_options.h"
#include "strategies/mysql/host/server_control.h"
#include "strategies/mysql/server/gtid.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kOtherData = "option 'datadir' has different values";
constexpr int kPollMs = 200;
constexpr Millis kWatchEvery{500};
constexpr Millis kShowAfter{3000};  // that the tool waits for the server
constexpr std::size_t kLinesKept = 20, kLineKept = 500;
constexpr int kSessionTries = 300;
constexpr Millis kSessionPoll{100};
// A server's start is told in whole seconds.
constexpr Seconds kStartSlack{2};

ConnectTarget hurried(ConnectTarget target) {
  target.read_timeout = Seconds(30);
  return target;
}

}  // namespace

void end_sessions(ServerClient& client, const std::vector<std::uint64_t>& sessions, Clock& clock) {
  if (sessions.empty()) return;
  for (int i = 0; i < kSessionTries; ++i) {
    bool left = false;
    for (const Session& session : client.sessions()) {
      // Our own account's, as the numbers already say.
      if (session.user != client.target().user ||
          std::find(sessions.begin(), sessions.end(), session.id) == sessions.end())
        continue;
      if (session.command != "Killed") client.kill_session(session.id);
      left = true;
    }
    if (!left) return;
    clock.sleep(kSessionPoll, {});
  }
  throw Error(Code::deadline_exceeded, "ending the backup tool's sessions on the server: they are still there",
              "SHOW PROCESSLIST shows what they wait for");
}

bool end_left_sessions(const MysqlSettings& settings, const fs::path& work_dir, Clock& clock) {
  const auto record = read_gate_record(work_dir);
  if (!record) return false;
  if (!record->own_dir.empty()) remove_tree(record->own_dir);
  // A server that is down has no session left.
  if (record->sessions.empty() || !greets(settings.socket)) return false;
  ServerClient client(local_target(settings));
  // Nor has one that was started since; its numbers are of others.
  if (clock.now() - Seconds(client.uptime_s()) > record->written + kStartSlack) return false;
  const std::vector<Session> now = client.sessions();
  const bool left = std::any_of(now.begin(), now.end(), [&](const Session& session) {
    return session.user == client.target().user &&
           std::find(record->sessions.begin(), record->sessions.end(), session.id) != record->sessions.end();
  });
  if (left) end_sessions(client, record->sessions, clock);
  return left;
}

ToolCopy::ToolCopy(const MysqlSettings& settings, BackupSpec spec, Clock& clock, XbstreamFiles::Maker maker,
                   std::vector<std::string_view> kept)
    : settings_(settings),
      spec_(std::move(spec)),
      clock_(clock),
      files_(std::move(kept), maker, &tables_),
      client_(hurried(spec_.target)) {}

void ToolCopy::start(std::string_view group, std::vector<std::string> options, std::string_view more) {
  const fs::path file = spec_.work_dir / "options.cnf";
  gate_ = std::make_unique<ToolGate>(spec_.work_dir, spec_.target.socket,
                                     GateLimits{settings_.lock_wait, settings_.freeze_limit}, clock_);
  write_file_atomic(
      file, tool_options(settings_, spec_.target, gate_->socket(), spec_.server, group) + std::string(more), 0600);
  make_dir(info_dir(), 0700);
  ChildSpec child;
  child.argv = {spec_.tool.path.string(), "--defaults-file=" + file.string()};
  child.argv.insert(child.argv.end(), options.begin(), options.end());
  child.pipe_stdout = true;
  child.working_dir = spec_.work_dir.string();
  child.on_line = [this](std::string_view line) {
    for (const std::string& each : lines_.take(line)) take_line(each);
  };
  child_ = std::make_unique<Child>(std::move(child));
  watchdog_ = std::jthread([this, tags = LogScope::current()](const std::stop_token& stop) {
    const LogScope scope(tags);
    watch(stop);
  });
}

void ToolCopy::take_line(std::string_view line) {
  log_debug("backup tool", {{"line", std::string(line)}});
  {
    const std::scoped_lock lock(mutex_);
    last_lines_.emplace_back(line.substr(0, kLineKept));
    if (last_lines_.size() > kLinesKept) last_lines_.pop_front();
    other_data_ = other_data_ || line.find(kOtherData) != std::string_view::npos;
  }
  hear(line);
}

std::vector<std::string> ToolCopy::last_lines() const {
  const std::scoped_lock lock(mutex_);
  return {last_lines_.begin(), last_lines_.end()};
}

void ToolCopy::stop() {
  watchdog_.request_stop();
  if (watchdog_.joinable()) watchdog_.join();
  // SIGTERM is blocked by some tools, which would run on to their end.
  child_.reset();
  if (!gate_) return;
  const std::vector<std::uint64_t> sessions = gate_->sessions();
  gate_.reset();
  // Locks that it has the server now gives free; a session that waits for one does not notice, and would hold up the
  // source.
  try {
    end_sessions(client_, sessions, clock_);
  } catch (const Error& e) {
    spec_.warn(std::string("could not end the backup tool's sessions: ") + e.what());
  }
}

std::uint64_t ToolCopy::lock_wait_s() const {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(1, settings_.lock_wait.count() / 1000));
}

// The server limits each wait by itself, as the gate told it. This is for what it was not told, and for a lock that is
// held.
std::string ToolCopy::holds_up() {
  const std::string limit = std::to_string(lock_wait_s()) + " s";
  if (const auto since = gate_->frozen_since(); since && clock_.steady() - *since > settings_.lock_wait) {
    return "it kept the source locked longer than " + limit;
  }
  const std::vector<std::uint64_t> own = gate_->sessions();
  for (const Session& session : client_.sessions()) {
    if (std::find(own.begin(), own.end(), session.id) == own.end() || lock_kind(session.info) == LockKind::none)
      continue;
    if (Seconds(session.seconds) > settings_.lock_wait + settings_.freeze_limit) {
      return "its " + session.info + " waited longer than " + limit + " for the queries of others";
    }
  }
  return {};
}

void ToolCopy::show_waiting(bool& shown) {
  if (spec_.job == nullptr) return;
  const auto open = gate_->unanswered();
  const bool waits = open && clock_.steady() - open->since > kShowAfter;
  if (waits == shown) return;
  spec_.job->phase(waits ? "wait for the source" : "copy");
  if (waits) log_info("the backup tool waits for the source", {{"statement", open->statement}});
  shown = waits;
}

void ToolCopy::watch(const std::stop_token& stop) {
  bool warned = false, shown = false;
  while (clock_.sleep(kWatchEvery, stop)) {
    std::string why;
    try {
      show_waiting(shown);
      why = holds_up();
    } catch (const Error& e) {
      // A server that does not answer the watchdog ends the tool's own connection too.
      if (!warned) spec_.warn(std::string("cannot see whether the copy holds up the source: ") + e.what());
      warned = true;
    }
    if (why.empty()) continue;
    end_with(Error(Code::deadline_exceeded, "copying the server's data: " + spec_.tool.name + " was stopped: " + why,
                   "mysql.lock_wait is the limit; end the long query on the source, or try at a quieter time"));
    return;
  }
}

void ToolCopy::end_with(Error why) {
  {
    const std::scoped_lock lock(mutex_);
    if (!ended_with_) ended_with_ = std::move(why);
  }
  child_->kill_group(SIGKILL);
}

// It can only have asked this one, or another one.
void ToolCopy::require_this_server() const {
  const std::string hint =
      "remove host, port, protocol, socket and datadir from the groups that it reads in the server's option files";
  {
    const std::scoped_lock lock(mutex_);
    if (other_data_) {
      throw Error(Code::failed_precondition,
                  "copying the server's data: " + spec_.tool.name +
                      ": it reads the files of another server than the one that it asks",
                  hint);
    }
  }
  if (!gate_->sessions().empty()) return;
  throw Error(Code::failed_precondition,
              "copying the server's data: " + spec_.tool.name + ": it did not ask the server of " +
                  spec_.target.socket.string() + ", so that its copy and its position may be of another one",
              hint);
}

std::size_t ToolCopy::read(std::span<std::byte> into) {
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
    if (n > 0) {
      require_this_server();
      files_.see(into.first(static_cast<std::size_t>(n)));
      require_stream();
      return static_cast<std::size_t>(n);
    }
    judge();
    ended_ = true;
    return 0;
  }
}

void ToolCopy::judge() {
  const Child::Exit exit = child_->wait(spec_.stop);
  const std::vector<std::string> lines = last_lines();
  {
    const std::scoped_lock lock(mutex_);
    if (ended_with_) throw Error(*ended_with_);
  }
  if (!exit.ok()) throw failure(exit.describe(), lines);
  if (lines.empty() || !says_completed(lines.back())) throw failure("it ended without saying that it completed", lines);
  require_this_server();
  check_stream();
  position_ = finish();
}

void ToolCopy::check_stream() const {
  if (!files_.at_boundary()) {
    throw Error(Code::data_loss,
                "reading the backup tool's stream: it ends within a chunk, or is not of the xbstream format",
                "take the copy again");
  }
  const std::vector<std::string> lacking = tables_.lacking();
  if (lacking.empty()) return;
  const std::string more = lacking.size() > 1 ? " and " + std::to_string(lacking.size() - 1) + " more" : "";
  throw Error(Code::unavailable,
              "copying the server's data: table " + lacking.front() + more +
                  " was renamed or made while the copy ran, and the copy lacks its data",
              "take the copy again when no tables of such an engine are renamed or made; a table whose files are "
              "missing on the source itself "
              "must be repaired or dropped first");
}

// What went wrong, in the tool's words, and what to do about it.
Error ToolCopy::failure(const std::string& what, const std::vector<std::string>& lines) const {
  std::string said;
  for (std::size_t i = lines.size() > 6 ? lines.size() - 6 : 0; i < lines.size(); ++i) {
    said += (said.empty() ? "" : " | ") + lines[i];
  }
  const auto has = [&](std::string_view words) {
    return std::any_of(lines.begin(), lines.end(),
                       [&](const std::string& line) { return line.find(words) != std::string::npos; });
  };
  const std::string message = "copying the server's data: " + spec_.tool.name + ": " + what + ": " + said;
  if (has(kOtherData)) {
    return {Code::failed_precondition, message,
            "the tool must copy the server of mysql.socket: remove host, port and socket from the groups that it reads "
            "in the server's "
            "option files"};
  }
  if (has("Unable to obtain lock") || has("Lock wait timeout exceeded")) {
    return {Code::deadline_exceeded, message,
            "a query on the source holds a lock longer than mysql.lock_wait; end it, raise the limit, or try "
            "at a quieter time"};
  }
  if (has("Too many connections")) {
    return {Code::unavailable, message,
            "all connections of the source's server are in use: a larger max_connections, or a quieter time"};
  }
  if (has("gone away") || has("Lost connection")) {
    return {Code::unavailable, message, "the source's server ended, or was restarted, while it was copied"};
  }
  if (has("without redo logging")) {
    return {Code::unavailable, message,
            "an index was built on the source during the copy; take the snapshot again when no ALTER TABLE, CREATE "
            "INDEX or OPTIMIZE TABLE "
            "runs there"};
  }
  if (has("Was only able to copy log") || has("log block numbers mismatch") || has("wrapped around")) {
    return {Code::resource_exhausted, message,
            "the source wrote its redo log faster than the copy was taken away: a larger "
            "innodb_log_file_size, or a faster store"};
  }
  if (has("Access denied") || has("missing required privilege")) {
    return {Code::permission_denied, message, "the agent's account needs " + std::string(rights())};
  }
  if (has("nsupported server version")) {
    return {Code::failed_precondition, message, "install the tool of the server's series"};
  }
  if (has("keyring") || has("master key") || has("Failed to decrypt") || has("encryption key")) {
    return {Code::failed_precondition, message,
            "the source has encrypted tables: the tool must be able to read the server's keyring"};
  }
  if (has("No space left"))
    return {Code::resource_exhausted, message, "free space on the source's temporary directory"};
  return {Code::internal, message, "see the tool's lines in the agent's log"};
}

void ToolCopy::refuse_option(const std::string& option, const std::string& why) const {
  throw Error(
      Code::failed_precondition, "copying the server's data: " + spec_.tool.name + ": " + why,
      "remove " + option + " from the [" + spec_.tool.name + "] and [client] groups of the server's option files");
}

void ToolCopy::require_plain(const ToolInfo& info, std::string_view file) const {
  const std::string said = std::string(file) + ": the copy is ";
  if (info.partial) refuse_option("tables, tables-exclude, databases and the like", said + "partial");
  if (info.incremental) refuse_option("incremental-lsn, incremental-basedir and the like", said + "incremental");
  if (info.compact) refuse_option("compact", said + "compact");
  if (info.compressed) refuse_option("compress", said + "compressed by the tool");
  if (info.encrypted) refuse_option("encrypt", said + "encrypted by the tool");
}

void ToolCopy::require_set(const Position& position, std::string_view file) const {
  if (!position.gtid || position.gtid->empty()) return;
  try {
    GtidSet::parse(dialect_for(spec_.server.version).gtid, *position.gtid);
  } catch (const Error& e) {
    throw Error(Code::data_loss, "reading the backup's " + std::string(file) + ": GTID set: " + e.what(),
                "take the copy again");
  }
}

}  // namespace guestagent::mysql

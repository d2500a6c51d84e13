#include "strategies/mysql/tool_copy.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "strategies/mysql/gtid.h"
#include "strategies/mysql/tool_options.h"

namespace guestagent::mysql {
namespace {

constexpr int kPollMs = 200;
constexpr Millis kWatchEvery{500};

}  // namespace

ToolCopy::ToolCopy(const MysqlSettings& settings, BackupSpec spec, Clock& clock)
    : settings_(settings), spec_(std::move(spec)), clock_(clock) {}

void ToolCopy::start(std::string_view group, std::vector<std::string> options, std::string_view more) {
  const fs::path file = spec_.work_dir / "options.cnf";
  write_file_atomic(file, tool_options(settings_, spec_.target, spec_.server, group) + std::string(more), 0600);
  make_dir(info_dir(), 0700);
  ChildSpec child;
  child.argv = {spec_.tool.path.string(), "--defaults-file=" + file.string()};
  child.argv.insert(child.argv.end(), options.begin(), options.end());
  child.pipe_stdout = true;
  child.working_dir = spec_.work_dir.string();
  child.on_line = [this](std::string_view line) {
    log_debug("backup tool", {{"line", std::string(line)}});
    hear(line);
  };
  child_ = std::make_unique<Child>(std::move(child));
  watchdog_ = std::jthread([this, tags = LogScope::current()](const std::stop_token& stop) {
    const LogScope scope(tags);
    watch(stop);
  });
}

void ToolCopy::stop() {
  watchdog_.request_stop();
  if (watchdog_.joinable()) watchdog_.join();
  // SIGTERM is blocked by some tools, which would run on to their end. When it is gone the server gives its locks
  // free by itself.
  child_.reset();
}

std::uint64_t ToolCopy::lock_wait_s() const {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(1, settings_.lock_wait.count() / 1000));
}

void ToolCopy::watch(const std::stop_token& stop) {
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
      see(into.first(static_cast<std::size_t>(n)));
      return static_cast<std::size_t>(n);
    }
    judge();
    ended_ = true;
    return 0;
  }
}

void ToolCopy::judge() {
  const Child::Exit exit = child_->wait(spec_.stop);
  const std::vector<std::string> lines = child_->last_lines();
  {
    const std::scoped_lock lock(mutex_);
    if (!stopped_because_.empty()) {
      throw Error(Code::deadline_exceeded,
                  "copying the server's data: " + spec_.tool.name + " was stopped: " + stopped_because_,
                  "mysql.lock_wait is the limit; end the long query on the source, or try at a quieter time");
    }
  }
  if (!exit.ok()) throw failure(exit.describe(), lines);
  if (lines.empty() || !says_completed(lines.back()))
    throw failure("it ended without saying that it completed", lines);
  position_ = finish();
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
  if (has("Unable to obtain lock")) {
    return {Code::deadline_exceeded, message,
            "a query on the source holds a lock longer than mysql.lock_wait; end it, raise the limit, or try "
            "at a quieter time"};
  }
  if (has("gone away") || has("Lost connection")) {
    return {Code::unavailable, message, "the source's server ended, or was restarted, while it was copied"};
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

void ToolCopy::require_plain(const ToolInfo& info, std::string_view file) const {
  if (!info.partial && !info.incremental && !info.compact && !info.compressed && !info.encrypted) return;
  throw Error(Code::failed_precondition,
              "copying the server's data: " + std::string(file) +
                  ": the copy is partial, incremental, compact, compressed or encrypted",
              "remove such options from the [" + spec_.tool.name + "] group of the server's option files");
}

void ToolCopy::require_set(const Position& position, std::string_view file) const {
  if (!position.gtid || position.gtid->empty()) return;
  try {
    GtidSet::parse(dialect_for(spec_.server.version).gtid, *position.gtid);
  } catch (const Error& e) {
    throw Error(Code::data_loss, "reading the backup's " + std::string(file) + ": GTID set: " + e.what(), "take the copy again");
  }
}

}  // namespace guestagent::mysql

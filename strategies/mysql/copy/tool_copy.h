// What the copies by a backup program have in common: the program runs and reaches the server through a gate, its
// stream is read, its end is judged, and while it runs somebody watches that its locks do not hold up the source.
// However it ends, its sessions on the server have ended when the object is gone.
#pragma once

#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/child.h"
#include "strategies/mysql/copy/backup_copy.h"
#include "strategies/mysql/copy/table_files.h"
#include "strategies/mysql/copy/tool_gate.h"
#include "strategies/mysql/copy/tool_info.h"
#include "strategies/mysql/copy/tool_lines.h"
#include "strategies/mysql/copy/xbstream_files.h"

namespace guestagent::mysql {

// Made in two steps: an object of a derived class, then start().
class ToolCopy : public BackupCopy {
 public:
  // `kept`: files of the stream that finish() looks at.
  ToolCopy(const MysqlSettings& settings, BackupSpec spec, Clock& clock, XbstreamFiles::Maker maker,
           std::vector<std::string_view> kept = {});

  // Starts the program with the options' file of `group`, followed by `options`; `more` are lines for that file.
  void start(std::string_view group, std::vector<std::string> options, std::string_view more = {});

  std::size_t read(std::span<std::byte> into) override;
  std::uint64_t last_start() const override { return files_.last_end(); }
  Position position() const override { return position_; }
  std::string tool() const override { return spec_.tool.name + " " + spec_.tool.version; }
  std::string format() const override { return "xbstream"; }

 protected:
  // What the tool said, line by line, on a thread of its own.
  virtual void hear(std::string_view line) = 0;
  // Throws for a stream that is not what was asked for; called with each piece that has gone by.
  virtual void require_stream() const {}
  // The tool has ended well: where the copy stands, or Error when what it left is not whole.
  virtual Position finish() = 0;
  // What the account needs, for the hint.
  virtual std::string_view rights() const = 0;

  // Ends the program, its threads and its sessions; every derived destructor calls it, before what hear() and see() use
  // is gone.
  void stop();

  std::uint64_t lock_wait_s() const;
  fs::path info_dir() const { return spec_.work_dir / "info"; }  // for --extra-lsndir
  // Throws for what a full, plain copy is not.
  void require_plain(const ToolInfo& info, std::string_view file) const;
  // Throws what a copy made to be of another kind by `option` is refused with.
  [[noreturn]] void refuse_option(const std::string& option, const std::string& why) const;
  // Throws data_loss for GTIDs that are no set of this server's kind.
  void require_set(const Position& position, std::string_view file) const;

  const MysqlSettings& settings_;
  const BackupSpec spec_;
  Clock& clock_;
  XbstreamFiles files_;

 private:
  void take_line(std::string_view line);
  void watch(const std::stop_token& stop);
  void show_waiting(bool& shown);
  // Why the source stands still because of the copy, or "".
  std::string holds_up();
  void end_with(Error why);
  void require_this_server() const;
  void judge();
  std::vector<std::string> last_lines() const;
  void check_stream() const;
  Error failure(const std::string& what, const std::vector<std::string>& lines) const;

  TableFiles tables_;
  Position position_;
  bool ended_ = false;
  ServerClient client_;  // of the watchdog's thread while that runs
  ToolLines lines_;      // of the thread that hears
  mutable std::mutex mutex_;
  std::optional<Error> ended_with_;     // guarded by mutex_: why the agent ended the tool
  std::deque<std::string> last_lines_;  // guarded by mutex_
  bool other_data_ = false;  // guarded by mutex_: the tool reads other files than those of the server that it asks
  std::unique_ptr<ToolGate> gate_;
  std::unique_ptr<Child> child_;
  std::jthread watchdog_;  // after child_: ends first
};

// Ends those sessions and waits until the server has let go of them; what is gone already is no error. Throws Error
// when it does not.
void end_sessions(ServerClient& client, const std::vector<std::uint64_t>& sessions, Clock& clock);

// After a crash: ends what a tool whose copy was in `work_dir` left in the server. Answers whether there was anything.
bool end_left_sessions(const MysqlSettings& settings, const fs::path& work_dir, Clock& clock);

}  // namespace guestagent::mysql

// What the copies by a backup program have in common: the program runs, its stream is read, its end is judged, and while it
// runs somebody watches that its locks do not hold up the source.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/child.h"
#include "strategies/mysql/backup_copy.h"
#include "strategies/mysql/tool_info.h"

namespace guestagent::mysql {

// Made in two steps: an object of a derived class, then start().
class ToolCopy : public BackupCopy {
 public:
  ToolCopy(const MysqlSettings& settings, BackupSpec spec, Clock& clock);

  // Starts the program with the options' file of `group`, followed by `options`; `more` are lines for that file.
  void start(std::string_view group, std::vector<std::string> options, std::string_view more = {});

  std::size_t read(std::span<std::byte> into) override;
  Position position() const override { return position_; }
  std::string tool() const override { return spec_.tool.name + " " + spec_.tool.version; }
  std::string format() const override { return "xbstream"; }

 protected:
  // What the tool said, line by line, on a thread of its own.
  virtual void hear(std::string_view line) = 0;
  // The bytes that read() answers.
  virtual void see(Bytes) {}
  // Why the source stands still because of the copy, or "". Called every half second on a thread of its own.
  virtual std::string frozen(ServerClient& client) = 0;
  // The tool has ended well: where the copy stands, or Error when what it left is not whole.
  virtual Position finish() = 0;
  // What the account needs, for the hint.
  virtual std::string_view rights() const = 0;

  // Ends the program and its threads; every derived destructor calls it, before what hear() and see() use is gone.
  void stop();

  std::uint64_t lock_wait_s() const;
  fs::path info_dir() const { return spec_.work_dir / "info"; }  // for --extra-lsndir
  // Throws for what a full, plain copy is not.
  void require_plain(const ToolInfo& info, std::string_view file) const;
  // Throws data_loss for GTIDs that are no set of this server's kind.
  void require_set(const Position& position, std::string_view file) const;

  const MysqlSettings& settings_;
  const BackupSpec spec_;
  Clock& clock_;

 private:
  void watch(const std::stop_token& stop);
  void judge();
  Error failure(const std::string& what, const std::vector<std::string>& lines) const;

  Position position_;
  bool ended_ = false;
  std::mutex mutex_;
  std::string stopped_because_;  // guarded by mutex_
  std::unique_ptr<Child> child_;
  std::jthread watchdog_;  // after child_: ends first
};

}  // namespace guestagent::mysql

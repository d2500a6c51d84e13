// The copy by mariadb-backup.
#include "strategies/mysql/copy/tool_copy.h"

namespace guestagent::mysql {
namespace {

class MariadbBackup : public ToolCopy {
 public:
  MariadbBackup(const MysqlSettings& settings, BackupSpec spec, Clock& clock)
      : ToolCopy(settings, std::move(spec), clock, XbstreamFiles::Maker::mariadb) {}
  ~MariadbBackup() override { stop(); }

  std::vector<std::string> options() const {
    return {"--backup", "--stream=xbstream", "--target-dir=" + (spec_.work_dir / "target").string(),
            "--extra-lsndir=" + info_dir().string(),
            "--parallel=" + std::to_string(std::max(1U, settings_.backup_parallel)),
            "--ftwrl-wait-timeout=" + std::to_string(lock_wait_s()),
            // Its second between looks at the redo log is long enough for a busy source to write a small one over.
            "--log-copy-interval=100", "--open-files-limit=1000000"};
  }
  std::string lines() const {
    // The socket needs none, as the agent's own connection has none; and through it the gate could not look.
    return spec_.target.tls ? "" : "loose-ssl=0\nloose-ssl-verify-server-cert=0\n";
  }

 protected:
  void hear(std::string_view line) override;
  Position finish() override;
  std::string_view rights() const override { return "RELOAD, PROCESS and BINLOG MONITOR"; }

 private:
  std::mutex said_mutex_;
  std::optional<Position> said_position_;  // guarded by said_mutex_
};

void MariadbBackup::hear(std::string_view line) {
  auto position = position_in_line(line);
  if (!position) return;
  const std::scoped_lock lock(said_mutex_);
  said_position_ = std::move(position);
}

Position MariadbBackup::finish() {
  const fs::path file = find_info_file(info_dir(), dialect_for(spec_.server.version).info_files);
  const std::string name = file.filename().string();
  const ToolInfo info = parse_tool_info(read_file(file), name);
  require_plain(info, name);
  const auto written = position_in_line(info.binlog_pos);
  if (!written)
    throw Error(Code::data_loss, "reading the backup's " + name + ": binlog_pos: missing or malformed",
                "take the copy again");
  const std::scoped_lock lock(said_mutex_);
  if (!said_position_ || !(*said_position_ == *written)) {
    throw Error(Code::data_loss, "reading the backup's " + name + ": binlog_pos: not what the tool said",
                "take the copy again");
  }
  Position out = *written;
  require_set(out, name);
  // Nothing was ever written there: the set is empty, which is not the same as not known.
  if (!out.gtid && spec_.server.gtid_on) out.gtid = "";
  return out;
}

}  // namespace

std::unique_ptr<BackupCopy> start_mariadb_backup(const MysqlSettings& settings, BackupSpec spec, Clock& clock) {
  auto copy = std::make_unique<MariadbBackup>(settings, std::move(spec), clock);
  copy->start("mariadb-backup", copy->options(), copy->lines());
  return copy;
}

}  // namespace guestagent::mysql

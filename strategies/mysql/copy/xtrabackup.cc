// The copy by xtrabackup, of each series that a server needs: 2.3, 2.4, 8.0 and later.
#include <algorithm>
#include <array>

#include "strategies/mysql/copy/tool_copy.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kInfo = "xtrabackup_info";
constexpr std::string_view kBinlogInfo = "xtrabackup_binlog_info";
constexpr std::string_view kCheckpoints = "xtrabackup_checkpoints";
constexpr std::string_view kMyCnf = "backup-my.cnf";

class Xtrabackup : public ToolCopy {
 public:
  Xtrabackup(const MysqlSettings& settings, BackupSpec spec, Clock& clock)
      : ToolCopy(settings, std::move(spec), clock, XbstreamFiles::Maker::percona,
                 {kInfo, kBinlogInfo, kCheckpoints, kMyCnf}) {}
  ~Xtrabackup() override { stop(); }

  std::vector<std::string> options() const;
  std::string lines() const;

 protected:
  void hear(std::string_view line) override;
  void require_stream() const override;
  Position finish() override;
  std::string_view rights() const override {
    return old_series()
               ? "RELOAD, LOCK TABLES, PROCESS and REPLICATION CLIENT"
               : "BACKUP_ADMIN, RELOAD, LOCK TABLES, PROCESS, REPLICATION CLIENT and SELECT on performance_schema";
  }

 private:
  bool old_series() const { return spec_.tool.version.starts_with("2."); }
  bool says_version_check() const { return old_series() || spec_.tool.version.starts_with("8.0."); }
  std::string required_file(std::string_view name) const;
  Position checked_position(const ToolInfo& info) const;
  void require_server() const;

  std::mutex said_mutex_;
  std::optional<Position> said_position_;  // guarded by said_mutex_
};

std::vector<std::string> Xtrabackup::options() const {
  const std::string limit = std::to_string(lock_wait_s());
  std::vector<std::string> out = {
      "--backup", "--stream=xbstream", "--target-dir=" + (spec_.work_dir / "target").string(),
      "--extra-lsndir=" + info_dir().string(), "--parallel=" + std::to_string(std::max(1U, settings_.backup_parallel)),
      // Queries that run when the lock is due are waited for before it is asked for: behind a waiting
      // lock all writers would wait.
      "--ftwrl-wait-timeout=" + limit, "--ftwrl-wait-threshold=1", "--ftwrl-wait-query-type=all"};
  if (!old_series()) out.push_back("--lock-ddl-timeout=" + limit);
  return out;
}

std::string Xtrabackup::lines() const {
  std::string out;
  // It would ask a server of its maker whether it is new enough.
  if (says_version_check()) out += "loose-no-version-check\n";
  // Else, with some servers, the position stands in the redo log alone, and is told only by prepare.
  if (old_series()) out += "loose-binlog-info=on\n";
  // The socket needs none, as the agent's own connection has none; and through it the gate could not look.
  if (!spec_.target.tls) out += "loose-ssl-mode=DISABLED\n";
  return out;
}

void Xtrabackup::hear(std::string_view line) {
  if (line.find("MySQL binlog position:") == std::string_view::npos) return;
  const std::scoped_lock lock(said_mutex_);
  if (auto position = position_in_line(line)) said_position_ = std::move(position);
}

// Seen at the first file, long before the small ones that are read here come, under another name.
void Xtrabackup::require_stream() const {
  if (files_.changed_by().empty()) return;
  const std::string option(files_.changed_by());
  refuse_option(option, "the stream's files are not the server's: the option " + option + " is set");
}

// Where the tool tells which server it asked.
void Xtrabackup::require_server() const {
  const auto text = files_.file(kMyCnf);
  if (!text) return;
  constexpr std::string_view kServerId = "\nserver_id=";
  const std::size_t at = text->find(kServerId);
  if (at == std::string::npos || spec_.server.server_id == 0) return;
  const std::string said = text->substr(at + kServerId.size(), text->find('\n', at + 1) - at - kServerId.size());
  if (said == "0" || said == std::to_string(spec_.server.server_id)) return;
  throw Error(Code::failed_precondition,
              "copying the server's data: " + std::string(kMyCnf) + ": server_id: " + said.substr(0, 20) +
                  " is not this server's, " + std::to_string(spec_.server.server_id),
              "remove host, port and socket from the [client] and [xtrabackup] groups of the server's option files");
}

std::string Xtrabackup::required_file(std::string_view name) const {
  auto text = files_.file(name);
  if (!text) {
    throw Error(
        Code::data_loss,
        "reading the backup's " + std::string(name) + ": " +
            (files_.lost() ? "the stream is not of the xbstream format" : "it is not in the stream, or not whole"),
        "take the copy again");
  }
  return *text;
}

// The place is in the stream itself, so that source and target read the same; whatever else tells it must agree.
Position Xtrabackup::checked_position(const ToolInfo& info) const {
  Position out = parse_binlog_info(required_file(kBinlogInfo), kBinlogInfo);
  require_set(out, kBinlogInfo);
  const auto differs = [&](const std::optional<Position>& other) {
    // GTIDs are left out: some series cut them off where they say them.
    return other && (other->file != out.file || other->offset != out.offset);
  };
  if (!info.binlog_pos.empty()) {
    const auto written = position_in_line(info.binlog_pos);
    if (!written || differs(written)) {
      throw Error(
          Code::data_loss,
          "reading the backup's " + std::string(kInfo) + ": binlog_pos: not what " + std::string(kBinlogInfo) + " has",
          "take the copy again");
    }
  }
  if (differs(said_position_)) {
    throw Error(Code::data_loss,
                "reading the backup's " + std::string(kBinlogInfo) + ": position: not what the tool said",
                "take the copy again");
  }
  if (spec_.server.gtid_on && !out.gtid) {
    throw Error(Code::data_loss,
                "reading the backup's " + std::string(kBinlogInfo) +
                    ": GTID set: missing, although the server has gtid_mode=ON",
                "take the copy again");
  }
  return out;
}

Position Xtrabackup::finish() {
  const ToolInfo info = parse_tool_info(required_file(kInfo), kInfo);
  require_plain(info, kInfo);
  require_server();
  if (info.format != "xbstream") {
    throw Error(Code::data_loss,
                "reading the backup's " + std::string(kInfo) + ": format: \"" + info.format + "\", not xbstream",
                "take the copy again");
  }
  const ToolCheckpoints checkpoints = parse_checkpoints(required_file(kCheckpoints), kCheckpoints);
  if (checkpoints.backup_type != "full-backuped") {
    throw Error(Code::data_loss,
                "reading the backup's " + std::string(kCheckpoints) + ": backup_type: " + checkpoints.backup_type,
                "take the copy again");
  }
  const std::scoped_lock lock(said_mutex_);
  return checked_position(info);
}

}  // namespace

std::unique_ptr<BackupCopy> start_xtrabackup(const MysqlSettings& settings, BackupSpec spec, Clock& clock) {
  make_dir(spec.work_dir / "target", 0700);
  auto copy = std::make_unique<Xtrabackup>(settings, std::move(spec), clock);
  copy->start("xtrabackup", copy->options(), copy->lines());
  return copy;
}

}  // namespace guestagent::mysql

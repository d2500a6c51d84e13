// What backup tools write beside the data, read without guessing: a missing or malformed field is
// Error(data_loss) naming file and field.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "strategies/mysql/server/position.h"

namespace guestagent::mysql {

// xtrabackup_info, mariadb_backup_info: "name = value" lines.
struct ToolInfo {
  std::string tool_name, tool_version, server_version;
  std::string start_time, end_time;
  std::optional<std::uint64_t> innodb_from_lsn, innodb_to_lsn;
  bool partial = false, incremental = false, compact = false, compressed = false, encrypted = false;
  std::string format;      // "xbstream"
  std::string binlog_pos;  // as written: filename '…', position '…', GTID of the last change '…'
  std::optional<double> lock_time_s;
};
ToolInfo parse_tool_info(std::string_view text, std::string_view file_name);

// xtrabackup_binlog_info: FILE TAB POSITION [TAB GTIDSET, which MySQL may spread over several lines] NEWLINE.
Position parse_binlog_info(std::string_view text, std::string_view file_name);

// The same position out of the tool's standard error ("… MySQL binlog position: filename 'b.000003', position
// '4711', GTID of the last change '0-1-2'"), or nullopt when no line has it.
std::optional<Position> position_in_line(std::string_view line);

// xtrabackup_checkpoints.
struct ToolCheckpoints {
  std::string backup_type;  // "full-backuped", "full-prepared", "log-applied"
  std::uint64_t from_lsn = 0, to_lsn = 0, last_lsn = 0;
};
ToolCheckpoints parse_checkpoints(std::string_view text, std::string_view file_name);

// The tool's word that it completed stands in its last non-empty line: "… completed OK!".
bool says_completed(std::string_view last_line);

// "mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu (x86_64)" and "xtrabackup
// version 8.0.35-31 based on …"
// -> "10.11.19", "8.0.35-31". Throws Error(internal) when there is no version in it.
std::string parse_tool_version(std::string_view output);

// The first of `names` that is in `dir`, or Error(data_loss) naming them all.
fs::path find_info_file(const fs::path& dir, std::span<const std::string_view> names);

}  // namespace guestagent::mysql

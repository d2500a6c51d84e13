// The programs that take, extract and prepare a copy: which there are, and which fit a server.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "config/settings.h"
#include "strategies/mysql/server/dialect.h"

namespace guestagent::mysql {

struct BackupTool {
  std::string name;  // "mariadb-backup", "xtrabackup", "clone" (which is no program: its path is empty)
  fs::path path;
  std::string version;  // "10.11.19"
};

// A program of that name in mysql.tools_dir, else on PATH; nullopt when there is none.
std::optional<fs::path> find_tool_path(const MysqlSettings& settings, std::string_view name);

// The backup tool of that name with its version, asked of the program itself. nullopt when there is none;
// Error when there is one that does not say a version.
std::optional<BackupTool> find_tool(const MysqlSettings& settings, std::string_view name);

// Every backup tool that is there, name -> version; one that cannot tell its version stands with "".
std::map<std::string, std::string> tools_found(const MysqlSettings& settings);

// "" when `tool` takes a right copy of a server of `version`, else why not, naming the series that would.
std::string tool_misfit(const BackupTool& tool, const ServerVersion& version);
// The same for preparing a copy of a server of `version`, which a tool that does not take it may still do.
std::string prepare_misfit(const BackupTool& tool, const ServerVersion& version);

// The tool that takes the copy: the one mysql.backup_tool names, else the first of the dialect's that is
// there and fits. Throws Error: not_found (what was looked for, where), failed_precondition (it does not
// fit).
BackupTool choose_tool(const MysqlSettings& settings, const ServerVersion& version);

// The program that brings the system tables of a `source` up to a newer `target`; nullopt where none is needed. Looked
// for in mysql.tools_dir, beside the server's own program, and on PATH; it must be of the target's series. Throws
// Error(failed_precondition) when there is none.
std::optional<fs::path> find_upgrade_tool(const MysqlSettings& settings, const ServerVersion& source,
                                          const ServerVersion& target);

}  // namespace guestagent::mysql

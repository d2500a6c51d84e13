#include "strategies/mysql/copy/backup_copy.h"

#include <array>
#include <utility>

namespace guestagent::mysql {
namespace {

using Start = std::unique_ptr<BackupCopy> (*)(const MysqlSettings&, BackupSpec, Clock&);

constexpr std::array kWays = {
    std::pair<std::string_view, Start>{"mariadb-backup", start_mariadb_backup},
    std::pair<std::string_view, Start>{"xtrabackup", start_xtrabackup},
    std::pair<std::string_view, Start>{"clone", start_clone},
};

}  // namespace

std::unique_ptr<BackupCopy> start_copy(const MysqlSettings& settings, BackupSpec spec, Clock& clock) {
  for (const auto& [tool, start] : kWays) {
    if (tool == spec.tool.name) return start(settings, std::move(spec), clock);
  }
  throw Error(Code::unimplemented, "copying the server's data by " + spec.tool.name + ": this agent does not know how",
              "mysql.backup_tool names the way to copy");
}

}  // namespace guestagent::mysql

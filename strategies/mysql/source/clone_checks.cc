#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "config/units.h"
#include "strategies/mysql/copy/clone_copy.h"
#include "strategies/mysql/host/server_control.h"
#include "strategies/mysql/source/snapshot_source.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kTablesNamed = 20;  // how many tables are named in a message
constexpr std::string_view kLibrary = "mysql_clone.so";

using Result = Check::Result;

Check check_tables(ServerClient& client) {
  std::string named;
  std::size_t count = 0;
  for (const TableName& table : client.user_tables(false)) {
    if (table.engine == "InnoDB") continue;
    if (++count <= kTablesNamed)
      named += (named.empty() ? "" : ", ") + table.schema + "." + table.name + " (" + table.engine + ")";
  }
  if (count == 0) return {"tables for clone", Result::ok, "all are InnoDB", "", Code::failed_precondition};
  if (count > kTablesNamed) named += " and " + std::to_string(count - kTablesNamed) + " more";
  return {"tables for clone", Result::failed,
          "the clone plugin copies only InnoDB tables with their rows; these are not: " + named,
          "ALTER TABLE … ENGINE=InnoDB, or take the snapshot by xtrabackup (mysql.backup_tool)",
          Code::failed_precondition};
}

Check check_plugin(ServerClient& client) {
  if (client.has_clone_plugin()) return {"clone plugin", Result::ok, "loaded", "", Code::failed_precondition};
  const fs::path library = fs::path(client.variable("plugin_dir").value_or("")) / kLibrary;
  if (std::error_code failed; !fs::exists(library, failed)) {
    return {"clone plugin", Result::failed, library.string() + ": there is none, and no xtrabackup that fits either",
            "install the server's plugins or percona-xtrabackup of the server's series", Code::failed_precondition};
  }
  if (!client.may_load_plugins()) {
    return {"clone plugin", Result::failed, "it is not loaded, and the agent's account may not load it",
            "plugin-load-add=mysql_clone.so in the server's option file, or once by hand: INSTALL PLUGIN clone SONAME "
            "'mysql_clone.so'",
            Code::permission_denied};
  }
  return {"clone plugin", Result::ok, "it is not loaded, and will be for the time of the copy", "",
          Code::failed_precondition};
}

Check check_room(const MysqlSettings& settings, const ServerIdentity& server) {
  const fs::path parent = clone_parent(settings);
  const std::uint64_t data = copied_bytes(server);
  const std::uint64_t needed = data + data / 50 + 64 * kMiB;
  const std::uint64_t free = free_bytes(parent);
  const std::string numbers = parent.string() + ": " + std::to_string(needed / kMiB) + " MiB needed for the clone, " +
                              std::to_string(free / kMiB) + " MiB free";
  if (free >= needed) return {"room for the clone", Result::ok, numbers, "", Code::resource_exhausted};
  return {"room for the clone", Result::failed, numbers,
          "free space there, set mysql.staging_dir to a larger file system, or take the snapshot by xtrabackup",
          Code::resource_exhausted};
}

// The server writes there and the agent reads it: the server's user must be one that the agent is or can become.
Check check_place(const MysqlSettings& settings) {
  const fs::path parent = clone_parent(settings);
  try {
    server_user(settings);
  } catch (const Error& e) {
    return {"place of the clone", Result::failed, e.what(), e.hint(), e.code()};
  }
  fs::path place = parent;
  std::error_code failed;
  while (!fs::exists(place, failed) && place != place.parent_path()) place = place.parent_path();
  if (::access(place.c_str(), W_OK | X_OK) != 0) {
    return {"place of the clone", Result::failed, place.string() + ": the agent may not make a directory there",
            "run the agent as root, or set mysql.staging_dir to a directory of its user", Code::permission_denied};
  }
  return {"place of the clone", Result::ok, parent.string(), "", Code::failed_precondition};
}

}  // namespace

void check_clone(const MysqlSettings& settings, ServerClient& client, const ServerIdentity& server,
                 std::vector<Check>& out) {
  out.push_back(check_tables(client));
  out.push_back(check_plugin(client));
  out.push_back(check_place(settings));
  out.push_back(check_room(settings, server));
}

}  // namespace guestagent::mysql

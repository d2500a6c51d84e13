#include "strategies/mysql/kind.h"

#include "strategies/mysql/host/host_needs.h"
#include "strategies/mysql/host/server_identity.h"
#include "strategies/mysql/mysql_datastore.h"
#include "strategies/mysql/mysql_roles.h"
#include "strategies/mysql/source/host_checks.h"

namespace guestagent::mysql {
namespace {

DatastoreParts make(const Settings& settings, Clock& clock) {
  const auto both = std::make_shared<MysqlDatastore>(settings, clock);
  return {both, both, std::make_shared<MysqlRoles>(settings, clock)};
}

}  // namespace

constinit const DatastoreKind kKind = {
    .name = "mysql",
    .make = make,
    .host_needs = [](const Settings& settings) { return host_needs(settings.mysql); },
    .check_config = [](const Settings& settings) { return std::vector<Check>{check_managed_file(settings.mysql)}; },
    .check_host = [](const Settings& settings) { return check_host(settings.mysql); },
    .how_to_look = [](const Settings& settings, const fs::path& dir) { return how_to_look(settings.mysql, dir); },
    .attach_members = attach_members,
    // The client library would load plugins from where these say.
    .foreign_environment =
        [] {
          return std::vector<const char*>{"MARIADB_PLUGIN_DIR", "LIBMYSQL_PLUGIN_DIR", "LIBMYSQL_PLUGINS",
                                          "MYSQL_HOST",         "MYSQL_TCP_PORT",      "MYSQL_UNIX_PORT"};
        },
};

}  // namespace guestagent::mysql

#include "strategies/datastores.h"

#include <array>

#include "base/error.h"
#include "strategies/mysql/host/host_needs.h"
#include "strategies/mysql/host/server_identity.h"
#include "strategies/mysql/mysql_datastore.h"
#include "strategies/mysql/source/host_checks.h"

namespace guestagent {
namespace {

struct Row {
  std::string_view name;
  DatastoreParts (*make)(const Settings& settings, Clock& clock);
  std::vector<Check> (*check)(const Settings& settings);
  HostNeeds (*needs)(const Settings& settings);
  std::vector<Check> (*check_config)(const Settings& settings);
  std::string (*look)(const Settings& settings, const fs::path& dir);
  std::vector<std::string_view> (*attach_members)();
  std::vector<const char*> (*environment)();
};

template <typename T>
DatastoreParts make(const Settings& settings, Clock& clock) {
  const auto both = std::make_shared<T>(settings, clock);
  return {both, both};
}

constexpr std::array<Row, 1> kDatastores = {{
    {"mysql", make<mysql::MysqlDatastore>, [](const Settings& settings) { return mysql::check_host(settings.mysql); },
     [](const Settings& settings) { return mysql::host_needs(settings.mysql); },
     [](const Settings& settings) { return std::vector<Check>{mysql::check_managed_file(settings.mysql)}; },
     [](const Settings& settings, const fs::path& dir) { return mysql::how_to_look(settings.mysql, dir); },
     mysql::attach_members,
     // The client library would load plugins from where these say.
     [] {
       return std::vector<const char*>{"MARIADB_PLUGIN_DIR", "LIBMYSQL_PLUGIN_DIR", "LIBMYSQL_PLUGINS",
                                       "MYSQL_HOST",         "MYSQL_TCP_PORT",      "MYSQL_UNIX_PORT"};
     }},
}};

const Row& row_of(const Settings& settings) {
  std::string known;
  for (const Row& row : kDatastores) {
    if (row.name == settings.datastore) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(Code::invalid_argument, "datastore: " + settings.datastore + ": not known", "one of: " + known);
}

template <typename T>
std::vector<T> of_all(std::vector<T> (*Row::*part)()) {
  std::vector<T> out;
  for (const Row& row : kDatastores) {
    const std::vector<T> its = (row.*part)();
    out.insert(out.end(), its.begin(), its.end());
  }
  return out;
}

}  // namespace

DatastoreParts make_datastore(const Settings& settings, Clock& clock) {
  return row_of(settings).make(settings, clock);
}

HostNeeds host_needs(const Settings& settings) {
  return row_of(settings).needs(settings);
}

std::vector<std::string_view> attach_members() {
  return of_all(&Row::attach_members);
}

std::vector<const char*> foreign_environment() {
  return of_all(&Row::environment);
}

std::vector<Check> check_config(const Settings& settings) {
  return row_of(settings).check_config(settings);
}

std::string how_to_look(const Settings& settings, const fs::path& dir) {
  return row_of(settings).look(settings, dir);
}

std::vector<Check> check_host(const Settings& settings) {
  return row_of(settings).check(settings);
}

}  // namespace guestagent

#include "strategies/datastores.h"

#include <array>

#include "base/error.h"
#include "strategies/mysql/mysql_datastore.h"
#include "strategies/mysql/source/host_checks.h"

namespace guestagent {
namespace {

struct Row {
  std::string_view name;
  DatastoreParts (*make)(const Settings& settings, Clock& clock);
  std::vector<Check> (*check)(const Settings& settings);
};

template <typename T>
DatastoreParts make(const Settings& settings, Clock& clock) {
  const auto both = std::make_shared<T>(settings, clock);
  return {both, both};
}

constexpr std::array<Row, 1> kDatastores = {{
    {"mysql", make<mysql::MysqlDatastore>, [](const Settings& settings) { return mysql::check_host(settings.mysql); }},
}};

const Row& row_of(const Settings& settings) {
  std::string known;
  for (const Row& row : kDatastores) {
    if (row.name == settings.datastore) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(Code::invalid_argument, "datastore: " + settings.datastore + ": not known", "one of: " + known);
}

}  // namespace

DatastoreParts make_datastore(const Settings& settings, Clock& clock) {
  return row_of(settings).make(settings, clock);
}

std::vector<Check> check_host(const Settings& settings) {
  return row_of(settings).check(settings);
}

}  // namespace guestagent

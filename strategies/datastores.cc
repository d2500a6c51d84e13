#include "strategies/datastores.h"

#include <array>

#include "base/error.h"
#include "strategies/mysql/mysql_datastore.h"

namespace guestagent {
namespace {

struct Row {
  std::string_view name;
  DatastoreParts (*make)(const Settings& settings, Clock& clock);
};

template <typename T>
DatastoreParts make(const Settings& settings, Clock& clock) {
  const auto both = std::make_shared<T>(settings, clock);
  return {both, both};
}

constexpr std::array<Row, 1> kDatastores = {{
    {"mysql", make<mysql::MysqlDatastore>},
}};

}  // namespace

DatastoreParts make_datastore(const Settings& settings, Clock& clock) {
  std::string known;
  for (const Row& row : kDatastores) {
    if (row.name == settings.datastore) return row.make(settings, clock);
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(Code::invalid_argument, "datastore: " + settings.datastore + ": not known", "one of: " + known);
}

}  // namespace guestagent

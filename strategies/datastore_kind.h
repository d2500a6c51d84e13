// What an engine brings along beside its datastore: all that is asked of it before there is one. A row of the table of
// datastores.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/roles.h"

namespace guestagent {

// One object behind the first two.
struct DatastoreParts {
  std::shared_ptr<Datastore> datastore;
  std::shared_ptr<DatastoreUpkeep> upkeep;
  std::shared_ptr<DatastoreRoles> roles;
};

// `name` is what the configuration's `datastore` and a snapshot's metadata call it; the rest is as datastores.h says of
// the functions of the same names.
struct DatastoreKind {
  std::string_view name;
  DatastoreParts (*make)(const Settings& settings, Clock& clock);
  HostNeeds (*host_needs)(const Settings& settings);
  std::vector<Check> (*check_config)(const Settings& settings);
  std::vector<Check> (*check_host)(const Settings& settings);
  std::string (*how_to_look)(const Settings& settings, const fs::path& dir);
  std::vector<std::string_view> (*attach_members)();
  std::vector<const char*> (*foreign_environment)();
};

}  // namespace guestagent

// The table of datastores: the one place that knows their names.
#pragma once

#include <memory>

#include "config/settings.h"
#include "strategies/datastore.h"

namespace guestagent {

struct DatastoreParts {
  std::shared_ptr<Datastore> datastore;
  std::shared_ptr<DatastoreUpkeep> upkeep;
};

// The configured datastore. Connects to nothing. Throws Error(invalid_argument) for one that nobody knows.
DatastoreParts make_datastore(const Settings& settings, Clock& clock);

// What must be right on this host beside what the datastore's plans check, in the order in which it is to be put right.
// Throws as make_datastore; what is wrong with the host is a failed check.
std::vector<Check> check_host(const Settings& settings);

}  // namespace guestagent

// The table of datastores: the one place that knows their names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "strategies/datastore_kind.h"

namespace guestagent {

// The configured datastore. Connects to nothing. Throws Error(invalid_argument) for one that nobody knows.
DatastoreParts make_datastore(const Settings& settings, Clock& clock);

// What the configured datastore's settings mean for this host. Touches nothing.
HostNeeds host_needs(const Settings& settings);

// The members of an attach's slave_config that are an engine's own, of all of them: for help, which knows no
// configuration.
std::vector<std::string_view> attach_members();

// Environment variables that no datastore of this program, nor a library of its, may see.
std::vector<const char*> foreign_environment();

// What is tried of its configuration beside the server's answer, for `guestagent check-config`.
std::vector<Check> check_config(const Settings& settings);

// For people: how to look into data that was restored into `dir`.
std::string how_to_look(const Settings& settings, const fs::path& dir);

// What must be right on this host beside what the datastore's plans check, in the order in which it is to be put right.
// Throws as make_datastore; what is wrong with the host is a failed check.
std::vector<Check> check_host(const Settings& settings);

}  // namespace guestagent

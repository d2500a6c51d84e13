// What `guestagent doctor` looks at beside what the datastore checks: secrets, rights, the store, space and the clock.
// Each answers its checks and never throws for what is wrong with the host.
#pragma once

#include <vector>

#include "config/settings.h"
#include "storage/object_store.h"
#include "strategies/datastore.h"

namespace guestagent {

// Every file that a key names for a secret or a certificate: it is there, and a secret's is closed to others.
std::vector<Check> check_named_files(const Settings& settings);

// The agent's own rights and places: its user, the state directory, the spill, the socket's directory.
std::vector<Check> check_own_rights(const Settings& settings);

// No place of the agent's lies in the server's data directory, also not through links: the server would take it for a
// database, and an attach would exchange it with the data. Compares what the paths lead to; looks at the disk only.
Check check_places_apart(const Settings& settings);

// Writes one small object beside the snapshots, reads it back and removes it; then the store's clock against this
// host's. The second check is skipped where the first failed.
std::vector<Check> check_store_round_trip(const Settings& settings, ObjectStore& store);

// Whether the datastore's server answered describe(), and who it is.
Check check_answers(const ServerDescription& server, const HostNeeds& needs);

// Room for jobs (a failure), and for data, spill and copies (warnings). `server`: what describe() says, also of one
// that does not answer.
std::vector<Check> check_space(const Settings& settings, const ServerDescription& server);

// Whether the kernel says that its clock is kept right, and whether it can be right at all.
Check check_clock();

}  // namespace guestagent

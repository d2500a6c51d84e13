// The status in the form of the RPC contract: the answer of get_replication_status, and the member `status` of what an
// attach and a detach answer.
#pragma once

#include <string>

#include "strategies/replication_status.h"

namespace guestagent {

std::string write_status(const ReplicationStatus& status);

}  // namespace guestagent

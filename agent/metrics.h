// GET /metrics, as Prometheus text.
#pragma once

#include <string>

#include "agent/dispatcher.h"
#include "agent/jobs.h"
#include "strategies/replication_status.h"

namespace guestagent {

// Of what is known now: reads the jobs' records, and asks no server. May be called from any thread.
std::string render_metrics(Jobs& jobs, const Dispatcher& dispatcher, const ReplicationStatus& status);

}  // namespace guestagent

// GET /metrics, as Prometheus text.
#pragma once

#include <string>

#include "agent/dispatcher.h"
#include "agent/jobs.h"

namespace guestagent {

// `status_json` is get_replication_status's answer.
std::string render_metrics(Jobs& jobs, const Dispatcher& dispatcher, const std::string& status_json);

}  // namespace guestagent

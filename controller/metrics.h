// The controller's GET /metrics.
#pragma once

#include <string>

#include "controller/live.h"
#include "controller/state.h"

namespace guestagent::controller {

// Prometheus text.
std::string controller_metrics(State& state, const Live& live);

}  // namespace guestagent::controller

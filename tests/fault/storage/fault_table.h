// What can go wrong with one request.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "support/scripted_http.h"

namespace guestagent {

struct FaultRow {
  std::string name;
  PeerPlan plan;  // nothing where the fault is none of a request: "refused" and "TLS"
  bool passes;    // a single one is got over
  Code code;      // of one that stays
};

std::vector<FaultRow> fault_table();

// The longest silence that a client has to bear where the fault is a stall; without one a busy real server may take its
// time.
inline constexpr Millis kStallTold{3000};

// Text that looks like nothing else, `size` bytes.
std::string fault_content(std::size_t size);

}  // namespace guestagent

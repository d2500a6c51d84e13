// The journal's step "objects": what a job is about to store below a snapshot's id, or to remove there. It comes before
// the first request that changes anything, once more when the id is this job's own, and once before the manifest.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "storage/claim.h"

namespace guestagent {

inline constexpr std::string_view kObjectsStep = "objects";

struct ObjectsStep {
  std::string snapshot_id;
  std::string spill;            // a directory that may be there after a crash; empty: none
  std::string href;             // of the manifest, and so of the store; empty: written by an agent before claims
  std::string token;            // of the job's own claim; empty as href
  bool claimed = false;         // the claim is ours for certain: more than it may be stored
  std::string manifest_sha256;  // of the manifest that is about to be stored; empty before
  std::optional<Claim> found;   // a deletion: whose the snapshot was
};

std::string write_objects_step(const ObjectsStep& step);
// Throws Error(internal) for what is no such step.
ObjectsStep read_objects_step(std::string_view text);

}  // namespace guestagent

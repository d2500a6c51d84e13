// Snapshots as wholes: listing, deleting, verifying.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/job_context.h"
#include "config/settings.h"
#include "storage/object_store.h"
#include "storage/throttle.h"

namespace guestagent {

struct SnapshotListing {
  std::string id;
  std::string href;  // of its manifest, whether there is one or not
  bool complete = false;
  WallTime created_at;             // of its oldest object
  std::uint64_t stored_bytes = 0;  // what is there, by listing
};

// By one pass of listing, in order of ids; nothing is read. What was just written or deleted may be missing or still there.
std::vector<SnapshotListing> list_snapshots(ObjectStore& store, std::stop_token stop);

// Removes the manifest first, then everything below the snapshot's name; answers how many objects went (0: nothing was there).
// Nothing is left when it answers: a listing was asked again. Objects that could not be removed are named in the Error; the rest is gone.
std::uint64_t delete_snapshot(ObjectStore& store, std::string_view id, std::stop_token stop);

// The id of the snapshot whose manifest `href` names. permission_denied when it is not under the store, invalid_argument when it is no
// manifest's name.
std::string snapshot_id_of(const ObjectStore& store, std::string_view href);

// "[A-Za-z0-9][A-Za-z0-9._-]{0,63}", as job ids.
bool valid_id(std::string_view id);
// A new one, sortable by time: "20260131T235959Z-1f9a3c5e".
std::string new_snapshot_id(Clock& clock);

struct VerifyResult {
  std::uint64_t segments = 0, raw_bytes = 0, stored_bytes = 0;
  std::optional<std::string> encryption_key;  // its id
};
// Reads every byte back and checks it. data_loss names the first object that is wrong.
VerifyResult verify_snapshot(ObjectStore& store, std::string_view href, const SnapshotSettings& settings, Throttle& throttle,
                             JobContext& job);

}  // namespace guestagent

// Snapshots as wholes: listing, deleting, verifying.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/job_context.h"
#include "config/settings.h"
#include "storage/claim.h"
#include "storage/object_store.h"
#include "storage/snapshot_journal.h"
#include "storage/throttle.h"

namespace guestagent {

struct SnapshotListing {
  std::string id;
  std::string href;  // of its manifest, whether there is one or not
  bool complete = false;
  WallTime created_at;             // of its oldest object
  std::uint64_t stored_bytes = 0;  // what is there, by listing
};

// By one pass of listing, in order of ids; nothing is read. What was just written or deleted may be missing or still
// there.
std::vector<SnapshotListing> list_snapshots(ObjectStore& store, std::stop_token stop);

// What is to be removed on request, whoever made it. Looked up first, so that it can be journaled.
struct Deletion {
  std::string id;
  std::string token;           // of the claim that the deletion makes
  std::string host;            // who deletes
  std::optional<Claim> found;  // whose the snapshot is; nullopt: there is no claim
};
Deletion plan_deletion(ObjectStore& store, std::string_view id, std::string host, std::stop_token stop);

// Takes the claim over, so that a maker that still runs fails and nobody else takes the id; removes the manifest first,
// then everything below the snapshot's name, the claim last. Answers how many objects went (0: nothing was there).
// Nothing is left when it answers: a listing was asked again. Objects that could not be removed are named in the Error;
// the rest is gone.
std::uint64_t delete_snapshot(ObjectStore& store, const Deletion& deletion, std::stop_token stop);
// Both.
std::uint64_t delete_snapshot(ObjectStore& store, std::string_view id, std::stop_token stop);

struct Undone {
  std::uint64_t objects = 0;        // that were removed
  std::optional<Claim> of_another;  // set: the id is somebody else's now, and what is there was left alone
};
// Goes on with a deletion that did not come to its end, unless somebody else has made the id theirs since.
Undone finish_deletion(ObjectStore& store, const Deletion& deletion, std::stop_token stop);

// Removes what a job that failed or died has stored, by what it journaled: only where the claim is its own, or there is
// none and no manifest but its own.
Undone undo_snapshot(ObjectStore& store, const ObjectsStep& step, std::stop_token stop);

// The id of the snapshot whose manifest `href` names. permission_denied when it is not under the store,
// invalid_argument when it is no manifest's name.
std::string snapshot_id_of(const ObjectStore& store, std::string_view href);

struct VerifyResult {
  std::uint64_t segments = 0, raw_bytes = 0, stored_bytes = 0;
  std::optional<std::string> encryption_key;  // its id
};
// Reads every byte back and checks it. data_loss names the first object that is wrong.
VerifyResult verify_snapshot(ObjectStore& store, std::string_view href, const SnapshotSettings& settings,
                             Throttle& throttle, JobContext& job);

}  // namespace guestagent

// Where the two sides of a snapshot meet: what the datastore says of it and what the store has of it.
#pragma once

#include <string>

#include "storage/snapshot_writer.h"
#include "strategies/datastore.h"

namespace guestagent {

// Manifest::dataset_json: all that the source told but the account.
std::string write_dataset(const std::string& datastore, const SourceFacts& facts);
// SourceFacts::server_json in a manifest's dataset_json; "{}" where an older agent wrote none. Throws
// Error(data_loss).
std::string read_server(const std::string& dataset_json);

// What is told of a source alone, without data.
SnapshotMetadata source_metadata(const std::string& datastore, const SourceFacts& facts);
SnapshotMetadata make_metadata(const std::string& datastore, const SourceFacts& facts, const SnapshotSummary& stored);

// Throws failed_precondition for a snapshot of another datastore than `served`. `doing`: "attach".
void check_datastore(const SnapshotMetadata& snapshot, const std::string& served, const std::string& doing);

// Throws unless `metadata` is of the snapshot that `manifest` describes: failed_precondition for another
// snapshot's, data_loss where one of the two was altered. REQUIRES: both are of `datastore`, which has read the
// positions of the metadata.
void check_same_snapshot(const SnapshotMetadata& metadata, const Manifest& manifest, const Datastore& datastore);

}  // namespace guestagent

// The params of the RPC contract, read strictly: an unknown key or a wrong type is INVALID_ARGUMENT and names
// its path.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "strategies/datastore.h"
#include "strategies/roles.h"

namespace guestagent {

// Those that every changing or long method takes, too.
struct JobParams {
  bool async = false;
  bool dry_run = false;
  std::optional<std::string> job_id;
};
JobParams read_job_params(const JsonReader& params);

struct SnapshotParams {
  std::optional<std::string> snapshot_id;  // a valid_id; else one is made
  std::optional<std::string> compression;  // what codec_from knows; else the setting
};
SnapshotParams read_snapshot_params(const JsonReader& params);

// What is the engine's own in the params of these is read by `datastore`, which is called `name`. A snapshot of another
// one keeps its positions unread: who uses it refuses it.
AttachRequest read_attach_params(const JsonReader& params, const Datastore& datastore, const std::string& name);
// Of the two, one: `snapshot` is what an attach takes. `follow`: it may still be in the making.
struct StageParams {
  std::string href;
  bool follow = false;
  std::optional<SnapshotMetadata> snapshot;
};
StageParams read_stage_params(const JsonReader& params, const Datastore& datastore, const std::string& name);

DetachRequest read_detach_params(const JsonReader& params);
// `snapshot_href`, `replication_user`
std::string read_name_param(const JsonReader& params, std::string_view key);

struct ChecksumParams {
  std::vector<std::string> tables;      // empty: all user tables
  std::optional<std::uint64_t> sample;  // N: about one row in N; at least 1
  std::optional<OwnJson> at;            // a position
};
ChecksumParams read_checksum_params(const JsonReader& params, const Datastore& datastore);

ReadOnlyRequest read_read_only_params(const JsonReader& params);
struct WaitParams {
  OwnJson position;
  Millis timeout{60000};
};
WaitParams read_wait_params(const JsonReader& params, const Datastore& datastore);
struct NoParams {};
NoParams read_no_params(const JsonReader& params);
struct DemoteParams {
  bool force = false;
};
DemoteParams read_demote_params(const JsonReader& params);

std::string read_job_id(const JsonReader& params);
// "…_s": seconds, whole or not.
std::optional<Millis> read_seconds(const JsonReader& params, std::string_view key);

// The members of an attach's slave_config, of which `own` are an engine's: what it takes, in the order of its help.
std::vector<std::string_view> slave_config_members(const std::vector<std::string_view>& own);

// Throws for the first member of `object` that is not in `known`, naming what it may have meant.
void allow_only(const JsonReader& object, const std::vector<std::string_view>& known);

// sha256 of what the params ask for: order of keys and white space do not matter, nor do `async` and
// `job_id`.
std::string params_digest(const JsonValue& params);

}  // namespace guestagent

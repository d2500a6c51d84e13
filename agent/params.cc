#include "agent/params.h"

#include <algorithm>

#include "base/id.h"
#include "base/text.h"
#include "stream/codec.h"
#include "stream/digest.h"

namespace guestagent {
namespace {

constexpr double kMaxSeconds = 10 * 366 * 86400.0;

std::optional<std::string> read_id(const JsonReader& params, std::string_view key) {
  auto id = params.opt_string(key);
  if (id && !valid_id(*id)) throw params.error(key, kIdRule);
  return id;
}

std::string_view name_of(const JsonValue::Member& member) {
  return {member.name.GetString(), member.name.GetStringLength()};
}

SnapshotMetadata read_snapshot(const JsonReader& in, const Datastore& datastore, const std::string& name) {
  SnapshotMetadata read = read_metadata(in.value(), in.path());
  if (read.datastore != name) return read;
  read.data_position = datastore.read_position(in.object(kDataPosition));
  read.lease_position = datastore.read_position(in.object(kLeasePosition));
  return read;
}

void write_canonical(const JsonValue& value, bool top, JsonWriter& out) {
  if (value.IsArray()) {
    out.begin_array();
    for (const JsonValue& item : value.GetArray()) write_canonical(item, false, out);
    out.end_array();
  } else if (value.IsObject()) {
    std::vector<const JsonValue::Member*> members;
    for (const JsonValue::Member& member : value.GetObject()) {
      if (top && (name_of(member) == "async" || name_of(member) == "job_id")) continue;
      members.push_back(&member);
    }
    std::sort(members.begin(), members.end(), [](auto* a, auto* b) { return name_of(*a) < name_of(*b); });
    out.begin_object();
    for (const JsonValue::Member* member : members) {
      out.key(name_of(*member));
      write_canonical(member->value, false, out);
    }
    out.end_object();
  } else {
    out.raw(to_json(value));
  }
}

}  // namespace

JobParams read_job_params(const JsonReader& params) {
  JobParams read;
  read.async = params.opt_boolean("async").value_or(false);
  read.dry_run = params.opt_boolean("dry_run").value_or(false);
  read.job_id = read_id(params, "job_id");
  return read;
}

SnapshotParams read_snapshot_params(const JsonReader& params) {
  SnapshotParams read;
  read.snapshot_id = read_id(params, "snapshot_id");
  read.compression = params.opt_string("compression");
  if (read.compression) {
    try {
      codec_from(*read.compression);
    } catch (const Error& e) {
      throw params.error("compression", e.what());
    }
  }
  return read;
}

AttachRequest read_attach_params(const JsonReader& params, const Datastore& datastore, const std::string& name) {
  AttachRequest read;
  read.snapshot = read_snapshot(params.object("snapshot"), datastore, name);
  if (const auto config = params.opt_object("slave_config")) {
    allow_only(*config, slave_config_members(datastore.attach_members()));
    read.read_only = config->opt_boolean("read_only").value_or(true);
    read.own = datastore.read_attach_members(*config);
    read.overwrite = config->opt_boolean("overwrite").value_or(false);
    read.keep_previous_data = config->opt_boolean("keep_previous_data");
  }
  read.catch_up_timeout = read_seconds(params, "catch_up_timeout_s");
  return read;
}

StageParams read_stage_params(const JsonReader& params, const Datastore& datastore, const std::string& name) {
  StageParams read;
  if (const auto snapshot = params.opt_object("snapshot")) {
    if (params.opt_string("snapshot_href")) throw params.error("snapshot_href", "not beside snapshot, which names it");
    read.snapshot = read_snapshot(*snapshot, datastore, name);
    if (!read.snapshot->has_data) throw params.error("snapshot", "has no dataset: there is nothing to stage");
    read.href = read.snapshot->snapshot_href;
  } else {
    read.href = read_name_param(params, "snapshot_href");
  }
  read.follow = params.opt_boolean("follow").value_or(false);
  return read;
}

DetachRequest read_detach_params(const JsonReader& params) {
  DetachRequest read;
  read.drain_timeout = read_seconds(params, "drain_timeout_s");
  read.start_applying = params.opt_boolean("start_applying").value_or(false);
  read.force = params.opt_boolean("force").value_or(false);
  return read;
}

std::string read_name_param(const JsonReader& params, std::string_view key) {
  std::string name = params.string(key);
  if (name.empty()) throw params.error(key, "must not be empty");
  return name;
}

ChecksumParams read_checksum_params(const JsonReader& params, const Datastore& datastore) {
  ChecksumParams read;
  read.tables = params.strings("tables");
  read.sample = params.opt_uint("sample", 1);
  if (const auto at = params.opt_object("at")) read.at = datastore.read_position(*at);
  return read;
}

ReadOnlyRequest read_read_only_params(const JsonReader& params) {
  return {params.boolean("read_only"), read_seconds(params, "timeout_s"), params.opt_boolean("force").value_or(false)};
}

WaitParams read_wait_params(const JsonReader& params, const Datastore& datastore) {
  WaitParams read;
  read.position = datastore.read_position(params.object("position"));
  read.timeout = read_seconds(params, "timeout_s").value_or(read.timeout);
  return read;
}

NoParams read_no_params(const JsonReader&) {
  return {};
}

DemoteParams read_demote_params(const JsonReader& params) {
  return {params.opt_boolean("force").value_or(false)};
}

std::string read_job_id(const JsonReader& params) {
  auto id = read_id(params, "job_id");
  if (!id) throw params.error("job_id", "required");
  return *id;
}

std::optional<Millis> read_seconds(const JsonReader& params, std::string_view key) {
  const auto seconds = params.opt_number(key);
  if (!seconds) return std::nullopt;
  if (*seconds < 0 || *seconds > kMaxSeconds) throw params.error(key, "must be a number of seconds from 0 to 10 years");
  return Millis(static_cast<std::int64_t>(*seconds * 1000));
}

std::vector<std::string_view> slave_config_members(const std::vector<std::string_view>& own) {
  std::vector<std::string_view> out = {"read_only", "overwrite", "keep_previous_data"};
  out.insert(out.begin() + 1, own.begin(), own.end());
  return out;
}

void allow_only(const JsonReader& object, const std::vector<std::string_view>& known) {
  for (const JsonValue::Member& member : object.value().GetObject()) {
    const std::string_view name = name_of(member);
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string_view meant = nearest(name, known);
    const std::string message = object.path() + "." + printable(name) + ": unknown key";
    throw Error(Code::invalid_argument, message,
                !meant.empty()  ? "did you mean \"" + std::string(meant) + "\"?"
                : known.empty() ? "it takes no params"
                                : "known are: " + join(known));
  }
}

std::string params_digest(const JsonValue& params) {
  JsonWriter out;
  write_canonical(params, true, out);
  return sha256_hex(as_bytes(out.text()));
}

}  // namespace guestagent

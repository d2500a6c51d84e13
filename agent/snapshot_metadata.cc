#include "agent/snapshot_metadata.h"

#include "base/json.h"

namespace guestagent {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

JsonDocument parse_dataset(const std::string& dataset_json) {
  try {
    return parse_json(dataset_json, "manifest.dataset");
  } catch (const Error& e) {
    throw Error(Code::data_loss, e.what());
  }
}

}  // namespace

std::string write_dataset(const std::string& datastore, const SourceFacts& facts) {
  JsonWriter out;
  out.begin_object().member("datastore", datastore).member("datastore_version", facts.datastore_version);
  out.member("dataset_bytes", facts.dataset_bytes);
  out.key("master")
      .begin_object()
      .member("host", facts.master_host)
      .member("port", unsigned{facts.master_port})
      .end_object();
  out.key(kDataPosition).raw(facts.data_position.text());
  out.key(kLeasePosition).raw(facts.lease_position.text());
  out.key("server").raw(facts.server_json.empty() ? "{}" : facts.server_json);
  out.end_object();
  return out.text();
}

std::string read_server(const std::string& dataset_json) {
  const JsonDocument document = parse_dataset(dataset_json);
  const JsonReader in(document, "manifest.dataset", Code::data_loss);
  const auto server = in.opt_object("server");
  return server ? to_json(server->value()) : "{}";
}

SnapshotMetadata source_metadata(const std::string& datastore, const SourceFacts& facts) {
  SnapshotMetadata metadata;
  metadata.has_data = false;
  metadata.master_host = facts.master_host;
  metadata.master_port = facts.master_port;
  metadata.datastore = datastore;
  metadata.datastore_version = facts.datastore_version;
  metadata.data_position = facts.data_position;
  metadata.lease_position = facts.lease_position;
  metadata.replication_user = facts.replication_user;
  metadata.replication_password = facts.replication_password;
  metadata.require_tls = facts.require_tls;
  metadata.set = facts.set;
  return metadata;
}

SnapshotMetadata make_metadata(const std::string& datastore, const SourceFacts& facts, const SnapshotSummary& stored) {
  SnapshotMetadata metadata = source_metadata(datastore, facts);
  metadata.has_data = true;
  metadata.dataset_size = (facts.dataset_bytes + kGiB - 1) / kGiB;
  metadata.dataset_bytes = facts.dataset_bytes;
  metadata.snapshot_href = stored.href;
  const Manifest& manifest = stored.manifest;
  metadata.id = manifest.id;
  metadata.created_at = format_utc(manifest.created_at);
  metadata.tool = manifest.tool;
  metadata.format = manifest.format;
  metadata.compression = codec_name(manifest.codec);
  metadata.encryption = manifest.encryption_key;
  metadata.segments = manifest.segments;
  metadata.raw_bytes = manifest.raw_bytes;
  metadata.stored_bytes = manifest.stored_bytes;
  metadata.digest = manifest.digest;
  metadata.format_version = kFormatVersion;
  metadata.requires_list = manifest.requires_list;
  return metadata;
}

void check_datastore(const SnapshotMetadata& snapshot, const std::string& served, const std::string& doing) {
  if (snapshot.datastore == served) return;
  throw Error(Code::failed_precondition, doing + " snapshot " + snapshot.id + ": it is of datastore " +
                                             snapshot.datastore + ", this agent serves " + served);
}

void check_same_snapshot(const SnapshotMetadata& metadata, const Manifest& manifest, const Datastore& datastore) {
  const std::string doing = "compare the metadata with the manifest of snapshot " + manifest.id + ": ";
  if (metadata.id != manifest.id) {
    throw Error(Code::failed_precondition, doing + "the metadata is of snapshot " + metadata.id,
                "pass the metadata whole, as get_replication_snapshot answered it");
  }
  const auto differ = [&](std::string_view what) {
    return Error(Code::data_loss,
                 doing + std::string(what) + " differs: one of the two was altered or the snapshot was replaced",
                 "take a new snapshot");
  };
  if (metadata.digest != manifest.digest) throw differ("the digest");
  if (metadata.segments != manifest.segments) throw differ("the number of segments");
  if (metadata.raw_bytes != manifest.raw_bytes) throw differ("the size");
  if (metadata.stored_bytes != manifest.stored_bytes) throw differ("the stored size");
  if (metadata.format != manifest.format) throw differ("the format");
  if (metadata.encryption != manifest.encryption_key) throw differ("the encryption");
  if (metadata.compression != codec_name(manifest.codec)) throw differ("the compression");
  if (metadata.tool != manifest.tool) throw differ("the tool");
  if (metadata.created_at != format_utc(manifest.created_at)) throw differ("the time");
  if (metadata.requires_list != manifest.requires_list) throw differ("what a reader must know");

  const JsonDocument document = parse_dataset(manifest.dataset_json);
  const JsonReader dataset(document, "manifest.dataset", Code::data_loss);
  if (const auto position = dataset.opt_object(kDataPosition);
      position && !(datastore.read_position(*position) == metadata.data_position)) {
    throw differ("the replication position");
  }
}

}  // namespace guestagent

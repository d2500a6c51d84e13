#include "strategies/metadata.h"

#include <algorithm>

#include "base/host_name.h"
#include "base/id.h"

namespace guestagent {
namespace {

constexpr unsigned kFormatVersion = 1;
// More than any of them needs: a name of a user has up to 128 characters (MariaDB), a file's name up to 255 bytes.
constexpr std::size_t kMaxText = 1024;

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
}

std::string read_line(const JsonReader& in, std::string_view key) {
  std::string text = in.string(key);
  check_line(in, key, text, kMaxText);
  return text;
}

std::uint16_t read_port(const JsonReader& in, std::string_view key) {
  return static_cast<std::uint16_t>(in.uint(key, 1, 65535));
}

}  // namespace

void check_line(const JsonReader& in, std::string_view key, std::string_view text, std::size_t max) {
  if (text.size() > max) throw in.error(key, "must not be longer than " + std::to_string(max) + " bytes");
  if (std::any_of(text.begin(), text.end(), is_control))
    throw in.error(key, "must be one line without control characters");
}

std::string write_metadata(const SnapshotMetadata& metadata) {
  JsonWriter out;
  out.begin_object();
  out.key("master").begin_object();
  out.member("host", metadata.master_host);
  out.member("port", std::uint64_t{metadata.master_port});
  out.end_object();

  if (metadata.has_data) {
    out.key("dataset").begin_object();
    out.member("datastore", metadata.datastore);
    out.member("datastore_version", metadata.datastore_version);
    out.member("dataset_size", metadata.dataset_size);
    out.member("dataset_bytes", metadata.dataset_bytes);
    out.member("snapshot_href", metadata.snapshot_href);
    out.end_object();
  }

  out.key(kDataPosition).raw(metadata.data_position.text());
  out.key(kLeasePosition).raw(metadata.lease_position.text());

  out.key("replication_user").begin_object();
  out.member("name", metadata.replication_user);
  out.member("password", metadata.replication_password.reveal());
  out.member("require_tls", metadata.require_tls);
  out.end_object();

  if (!metadata.has_data) {
    out.key("source").begin_object().member("id", metadata.id).member("created_at", metadata.created_at);
    out.member("datastore", metadata.datastore).member("datastore_version", metadata.datastore_version);
    if (!metadata.set.empty()) out.member("set", metadata.set);
    out.member("format_version", std::uint64_t{metadata.format_version}).key("requires").begin_array().end_array();
    return out.end_object().end_object().text();
  }
  out.key("snapshot").begin_object();
  out.member("id", metadata.id);
  out.member("created_at", metadata.created_at);
  out.member("tool", metadata.tool);
  out.member("format", metadata.format);
  out.member("compression", metadata.compression);
  out.member_or_null("encryption", metadata.encryption);
  out.member("segments", metadata.segments);
  out.member("raw_bytes", metadata.raw_bytes);
  out.member("stored_bytes", metadata.stored_bytes);
  out.member("digest", metadata.digest);
  out.member("format_version", std::uint64_t{metadata.format_version});
  if (!metadata.set.empty()) out.member("set", metadata.set);
  out.key("requires").begin_array();
  for (const std::string& each : metadata.requires_list) out.value(each);
  out.end_array();
  out.end_object();
  out.end_object();
  return out.text();
}

SnapshotMetadata read_metadata(const JsonValue& value, const std::string& path) {
  const JsonReader in(value, path);
  SnapshotMetadata out;

  // First what tells whether the rest can be understood at all.
  // A source without a dataset tells of itself alone.
  out.has_data = in.has("dataset") || in.has("snapshot") || !in.has("source");
  const JsonReader snapshot = in.object(out.has_data ? "snapshot" : "source");
  out.format_version = static_cast<unsigned>(snapshot.uint("format_version", 1, 1000000));
  if (out.format_version > kFormatVersion) {
    throw Error(Code::failed_precondition,
                "reading the snapshot's metadata: " + snapshot.path() +
                    ".format_version: " + std::to_string(out.format_version) + " is newer than this agent's " +
                    std::to_string(kFormatVersion),
                "upgrade the agent on this host");
  }
  out.requires_list = snapshot.strings("requires");
  if (!out.requires_list.empty()) {
    throw Error(Code::failed_precondition,
                "reading the snapshot's metadata: " + snapshot.path() + ".requires: this agent does not know \"" +
                    out.requires_list.front().substr(0, 80) + "\"",
                "upgrade the agent on this host");
  }
  out.id = read_line(snapshot, "id");
  out.created_at = read_line(snapshot, "created_at");
  out.set = snapshot.opt_string("set").value_or("");
  if (!out.set.empty() && !valid_id(out.set)) throw snapshot.error("set", kIdRule);
  if (out.has_data) {
    out.tool = read_line(snapshot, "tool");
    out.format = read_line(snapshot, "format");
    out.compression = read_line(snapshot, "compression");
    out.encryption = snapshot.opt_string("encryption");
    if (out.encryption) check_line(snapshot, "encryption", *out.encryption, kMaxText);
    out.segments = snapshot.uint("segments");
    out.raw_bytes = snapshot.uint("raw_bytes");
    out.stored_bytes = snapshot.uint("stored_bytes");
    out.digest = read_line(snapshot, "digest");
  }

  const JsonReader master = in.object("master");
  out.master_host = HostName::require(master.path() + ".host", master.string("host")).text();
  out.master_port = read_port(master, "port");

  const JsonReader dataset = in.object(out.has_data ? "dataset" : "source");
  out.datastore = read_line(dataset, "datastore");
  out.datastore_version = read_line(dataset, "datastore_version");
  if (out.has_data) {
    out.dataset_size = dataset.uint("dataset_size");
    out.dataset_bytes = dataset.opt_uint("dataset_bytes").value_or(out.dataset_size << 30);
    out.snapshot_href = dataset.string("snapshot_href");
    check_line(dataset, "snapshot_href", out.snapshot_href, 4096);
  }
  out.data_position = OwnJson::of(in.object(kDataPosition));
  out.lease_position = OwnJson::of(in.object(kLeasePosition));

  const JsonReader user = in.object("replication_user");
  out.replication_user = read_line(user, "name");
  const std::string password = user.string("password");
  check_line(user, "password", password, kMaxText);
  out.replication_password = Secret(password);
  out.require_tls = user.opt_boolean("require_tls").value_or(false);
  if (out.replication_user.empty()) throw user.error("name", "must not be empty");
  return out;
}

}  // namespace guestagent

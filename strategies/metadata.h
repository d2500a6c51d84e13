// The snapshot metadata of the RPC contract (ARCHITECTURE.md, "Metadata"): what a controller carries, unread, from the
// source's get_replication_snapshot to each replica's attach_replication_slave.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/secret.h"
#include "strategies/own_json.h"

namespace guestagent {

struct SnapshotMetadata {
  std::string master_host;
  std::uint16_t master_port = 3306;

  std::string datastore;            // "mysql", the name in the table of datastores
  std::string datastore_version;    // "mariadb-10.11.19"
  std::uint64_t dataset_size = 0;   // GiB, rounded up
  std::uint64_t dataset_bytes = 0;  // bytes of data on the source when the copy began
  std::string snapshot_href;
  // False: of a source alone (open_replication_source), for a server that has the data. Then all that tells of what is
  // stored is as here.
  bool has_data = true;

  OwnJson data_position;  // of the data
  OwnJson lease_position;

  std::string replication_user;
  Secret replication_password;
  bool require_tls = false;

  // "snapshot": what is stored.
  std::string id, created_at, tool, format, compression;
  std::string set;  // which servers belong together, as their agents call it; empty: an older agent does not say
  std::optional<std::string> encryption;  // key id
  std::uint64_t segments = 0, raw_bytes = 0, stored_bytes = 0;
  std::string digest;
  unsigned format_version = 1;
  std::vector<std::string> requires_list;
};

// As JSON text; holds the password (contract).
std::string write_metadata(const SnapshotMetadata& metadata);
// Lenient: unknown keys are ignored; missing or mistyped ones are invalid_argument naming the path below `path`; an
// unknown entry in snapshot.requires or a newer format_version is failed_precondition. What is read is safe to pass on:
// the host is a HostName, every other text one line without control characters and of bounded length; but the positions
// are as they came, for the datastore to read (Datastore::read_position).
SnapshotMetadata read_metadata(const JsonValue& value, const std::string& path);

// The names that the positions have in the metadata, and in a manifest.
inline constexpr std::string_view kDataPosition = "binlog_position";
inline constexpr std::string_view kLeasePosition = "lease_position";

// Throws the reader's error unless `text`, the member `key`, is one line without control characters of at most `max`
// bytes: such texts travel on, into statements, command lines, option files and logs.
void check_line(const JsonReader& in, std::string_view key, std::string_view text, std::size_t max);

}  // namespace guestagent

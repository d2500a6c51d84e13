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

namespace guestagent {

// A place in the source's history. Fields the server cannot tell are null.
struct Position {
  std::optional<std::string> file;
  std::optional<std::uint64_t> offset;
  std::optional<std::string> gtid;  // a GTID set in the server's own spelling
  bool restored = false;            // "known": true -> "restored" (only the restored data can tell), false -> "now"
  bool operator==(const Position&) const = default;
};

struct SnapshotMetadata {
  std::string master_host;
  std::uint16_t master_port = 3306;

  std::string datastore;            // "mysql", the name in the table of datastores
  std::string datastore_version;    // "mariadb-10.11.19"
  std::uint64_t dataset_size = 0;   // GiB, rounded up
  std::uint64_t dataset_bytes = 0;  // bytes of data on the source when the copy began
  std::string snapshot_href;

  Position data_position;  // of the data
  Position lease_position;

  std::string replication_user;
  Secret replication_password;
  bool require_tls = false;

  // "snapshot": what is stored.
  std::string id, created_at, tool, format, compression;
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
// the host is a HostName, every other text one line without control characters and of bounded length (a GTID set may
// have line breaks, and only what such sets are made of), a position's file has no slash.
SnapshotMetadata read_metadata(const JsonValue& value, const std::string& path);

// The name that the data's position has in the metadata, and in a manifest.
inline constexpr std::string_view kDataPosition = "binlog_position";

void write_position(JsonWriter& out, const Position& position);
Position read_position(const JsonReader& in);

}  // namespace guestagent

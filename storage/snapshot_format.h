// Snapshot format version 1, as objects below `<snapshot id>/` on a store:
//
//   segment-00000001 …        up to segment_bytes of the tool's stream each, compressed as a frame of its own, then
//   encrypted index-000001.json …       up to 1000 segments each, written once, as they fill manifest.json written
//   last; lists the indexes with their digests. Without it there is no snapshot. stream.<format>.<codec>   where the
//   store can join objects: the whole stream as one GET
//
// Readers go by name from the manifest, ignore other objects and unknown keys, and refuse what `requires` lists and
// they do not know; entries that begin with "dataset." are for the datastore to know, not for this layer.
//
// What the manifest says is held together by its last member: "hmac" where a key is used, otherwise "checksum", a
// sha256 over the members of version 1 as write_manifest() puts them (so that a newer agent may add members and an
// altered one is noticed).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "stream/codec.h"
#include "stream/digest.h"

namespace guestagent {

inline constexpr unsigned kFormatVersion = 1;
inline constexpr std::size_t kSegmentsPerIndex = 1000;
inline constexpr std::uint64_t kMaxSegmentBytes = std::uint64_t{64} << 20;
// What cannot be compressed grows by its frame and the encryption's overhead, far less than this.
inline constexpr std::uint64_t kMaxStoredBytes = kMaxSegmentBytes + (std::uint64_t{1} << 20);
// An index of 1000 segments is about 250 KiB, a manifest of a petabyte about 8 MiB: what is larger is not ours.
inline constexpr std::uint64_t kMaxIndexBytes = std::uint64_t{4} << 20;
inline constexpr std::uint64_t kMaxManifestBytes = std::uint64_t{16} << 20;

struct SegmentEntry {
  std::string name;  // "segment-00000001"
  std::uint64_t raw_bytes = 0;
  std::uint64_t stored_bytes = 0;
  std::string sha256;  // of the stored bytes
  std::string xxh3;    // XXH3-128 of the raw bytes; in an encrypted snapshot absent ("no raw digest in the clear")
  std::string etag;    // what the store said when it took it; in no document
};

struct SegmentIndex {
  unsigned number = 0;  // from 1
  std::vector<SegmentEntry> segments;
};

struct IndexEntry {
  std::string name;  // "index-000001.json"
  std::uint64_t segments = 0;
  std::uint64_t raw_bytes = 0;
  std::uint64_t stored_bytes = 0;
  std::string sha256;  // of the index object's bytes
};

struct Manifest {
  std::string id;
  WallTime created_at;
  std::string tool;    // "mariadb-backup 10.11.19"
  std::string format;  // "xbstream", "tar"
  Codec codec = Codec::none;
  std::optional<std::string> encryption_key;  // id of the key; nullopt: not encrypted
  std::vector<IndexEntry> indexes;
  std::uint64_t segments = 0, raw_bytes = 0, stored_bytes = 0;
  std::string digest;        // "sha256:" over the lines "NAME RAW STORED SHA256\n" of all segments in order
  std::string dataset_json;  // what the datastore says of it (versions, position), opaque here: a JSON object
  std::vector<std::string> requires_list;
};

std::string segment_name(std::uint64_t number);  // from 1
std::string index_name(unsigned number);         // from 1
std::string stream_name(std::string_view format, Codec codec);
inline constexpr std::string_view kManifestName = "manifest.json";

// Keys derived from one configured key: segments by AES-256-GCM, documents by HMAC-SHA256.
struct SnapshotKeys {
  std::string id;
  Key segment;
  Key document;
};
SnapshotKeys derive_keys(std::string id, const Key& configured);

// Text of the documents. With keys, they are readable but authenticated: the last member is "hmac", over the text
// without it.
std::string write_index(const SegmentIndex& index, const SnapshotKeys* keys);
// Throws invalid_argument when dataset_json is no JSON object.
std::string write_manifest(const Manifest& manifest, const SnapshotKeys* keys);

// The reverse; hostile input. data_loss for what is malformed, inconsistent in itself or fails its hmac;
// failed_precondition for a newer format_version, an unknown `requires` or a key that is not configured (the hint says
// which).
SegmentIndex parse_index(std::string_view text, const SnapshotKeys* keys);
// The id of the key that a manifest needs, before it can be checked: nullopt for none.
std::optional<std::string> manifest_key_id(std::string_view text);
Manifest parse_manifest(std::string_view text, const SnapshotKeys* keys);

// What `digest` is computed with.
class SegmentListDigest {
 public:
  void add(const SegmentEntry& segment);
  std::string finish();  // "sha256:…"; once

 private:
  Hasher hasher_{Hash::sha256};
};

}  // namespace guestagent

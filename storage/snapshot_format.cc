#include "storage/snapshot_format.h"

#include <algorithm>

#include "base/id.h"
#include "base/json.h"
#include "base/text.h"

namespace guestagent {
namespace {

constexpr std::string_view kMacStart = R"(,"hmac":")";
constexpr std::string_view kMacEnd = R"("})";
constexpr std::size_t kSha256Hex = 64;
constexpr std::size_t kXxh3Hex = 32;
constexpr std::string_view kAlgorithm = "AES-256-GCM";
constexpr std::string_view kDigestPrefix = "sha256:";

std::string with_zeros(std::uint64_t number, std::size_t digits) {
  const std::string text = std::to_string(number);
  return text.size() < digits ? std::string(digits - text.size(), '0') + text : text;
}

bool is_hex(std::string_view text, std::size_t length) {
  return text.size() == length &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// `{…}` and a last member: `{…,"name":"value"}`.
std::string with_last_member(std::string body, std::string_view name, std::string_view value) {
  body.pop_back();
  return body.append(",\"").append(name).append("\":\"").append(value).append("\"}");
}

std::string authenticated(const std::string& body, const SnapshotKeys& keys) {
  return with_last_member(body, "hmac", hmac_sha256_hex(keys.document, as_bytes(body)));
}

void check_mac(std::string_view text, const SnapshotKeys& keys, std::string_view what) {
  const std::size_t tail = kMacStart.size() + kSha256Hex + kMacEnd.size();
  if (text.size() > tail) {
    const std::string_view end = text.substr(text.size() - tail);
    const std::string body = std::string(text.substr(0, text.size() - tail)) + '}';
    if (end.starts_with(kMacStart) && end.ends_with(kMacEnd) &&
        equal_in_constant_time(end.substr(kMacStart.size(), kSha256Hex),
                               hmac_sha256_hex(keys.document, as_bytes(body)))) {
      return;
    }
  }
  throw Error(Code::data_loss, std::string(what) + ": its authentication code is missing or wrong",
              "it was altered on the store, or written with another key of the same id");
}

JsonDocument parse_document(std::string_view text, std::string_view what) {
  try {
    return parse_json(text, what);
  } catch (const Error& error) {
    throw Error(Code::data_loss, error.what(), "the object on the store is damaged");
  }
}

void check_version(const JsonReader& document) {
  const std::uint64_t version = document.uint("format_version", 1);
  if (version > kFormatVersion) {
    throw Error(Code::failed_precondition,
                document.path() + ".format_version: " + std::to_string(version) + " is newer than " +
                    std::to_string(kFormatVersion) + ", the newest that this agent reads",
                "use a newer guestagent");
  }
}

const JsonValue& array_member(const JsonReader& object, std::string_view key) {
  const JsonValue* array = object.array(key);
  if (array == nullptr) throw object.error(key, "required");
  return *array;
}

// Before anything else is looked at: what is required may change what the rest means.
void check_requires(const JsonReader& manifest) {
  array_member(manifest, "requires");
  for (const std::string& entry : manifest.strings("requires")) {
    if (entry.starts_with("dataset.")) continue;
    throw Error(Code::failed_precondition, "manifest.requires: \"" + printable(entry) + "\" is not known to this agent",
                "use a newer guestagent");
  }
}

void require_member(const JsonReader& object, std::string_view key) {
  if (!object.value().HasMember(rapidjson::StringRef(key.data(), key.size()))) throw object.error(key, "required");
}

std::optional<std::string> key_id_of(const JsonReader& manifest) {
  require_member(manifest, "encryption");
  const auto encryption = manifest.opt_object("encryption");
  if (!encryption) return std::nullopt;
  if (const std::string algorithm = encryption->string("algorithm"); algorithm != kAlgorithm) {
    throw Error(Code::failed_precondition,
                encryption->path() + ".algorithm: \"" + printable(algorithm) + "\" is not known",
                "use a newer guestagent");
  }
  return encryption->string("key");
}

std::string hex_member(const JsonReader& object, std::string_view key, std::size_t length) {
  std::string text = object.string(key);
  if (!is_hex(text, length)) throw object.error(key, "must be " + std::to_string(length) + " hexadecimal digits");
  return text;
}

std::string element_path(const JsonReader& object, std::string_view key, rapidjson::SizeType i) {
  return object.path() + '.' + std::string(key) + '[' + std::to_string(i) + ']';
}

// The members of version 1, without checksum and hmac.
std::string manifest_body(const Manifest& m) {
  const JsonDocument dataset = parse_json(m.dataset_json, "the manifest's dataset");
  if (!dataset.IsObject()) throw Error(Code::invalid_argument, "the manifest's dataset: must be an object");
  JsonWriter json;
  json.begin_object()
      .member("format_version", kFormatVersion)
      .member("id", m.id)
      .member("created_at", format_utc(m.created_at))
      .member("tool", m.tool)
      .member("format", m.format)
      .member("compression", codec_name(m.codec))
      .key("encryption");
  if (m.encryption_key) {
    json.begin_object().member("algorithm", kAlgorithm).member("key", *m.encryption_key).end_object();
  } else {
    json.null();
  }
  json.key("indexes").begin_array();
  for (const IndexEntry& index : m.indexes) {
    json.begin_object()
        .member("name", index.name)
        .member("segments", index.segments)
        .member("raw_bytes", index.raw_bytes)
        .member("stored_bytes", index.stored_bytes)
        .member("sha256", index.sha256)
        .end_object();
  }
  json.end_array()
      .member("segments", m.segments)
      .member("raw_bytes", m.raw_bytes)
      .member("stored_bytes", m.stored_bytes)
      .member("digest", m.digest)
      .key("dataset")
      .raw(to_json(dataset))
      .key("requires")
      .begin_array();
  for (const std::string& entry : m.requires_list) json.value(entry);
  json.end_array().end_object();
  return json.text();
}

std::string checksum(const std::string& body) {
  return std::string(kDigestPrefix) + sha256_hex(as_bytes(body));
}

// Each index has between 1 and 64 MiB of raw bytes a segment; so bounded, the sums of a manifest cannot overflow.
IndexEntry read_index_entry(const JsonReader& json, std::size_t position, bool last) {
  IndexEntry index;
  index.name = json.string("name");
  if (index.name != index_name(static_cast<unsigned>(position + 1))) {
    throw json.error("name", "must be " + index_name(static_cast<unsigned>(position + 1)));
  }
  index.segments = json.uint("segments", last ? 1 : kSegmentsPerIndex, kSegmentsPerIndex);
  index.raw_bytes = json.uint("raw_bytes", index.segments, index.segments * kMaxSegmentBytes);
  index.stored_bytes = json.uint("stored_bytes", index.segments, index.segments * kMaxStoredBytes);
  index.sha256 = hex_member(json, "sha256", kSha256Hex);
  return index;
}

Manifest read_manifest(const JsonReader& json) {
  Manifest m;
  m.id = json.string("id");
  if (!valid_id(m.id)) throw json.error("id", "is no snapshot's id");
  m.tool = json.string("tool");
  m.format = json.string("format");
  try {
    m.created_at = parse_utc(json.string("created_at"));
    m.codec = codec_from(json.string("compression"));
  } catch (const Error& error) {
    throw Error(Code::data_loss, json.path() + ": " + error.what(), error.hint());
  }
  m.encryption_key = key_id_of(json);
  const JsonValue& indexes = array_member(json, "indexes");
  if (indexes.Empty()) throw json.error("indexes", "must not be empty");
  std::uint64_t segments = 0;
  std::uint64_t raw_bytes = 0;
  std::uint64_t stored_bytes = 0;
  for (rapidjson::SizeType i = 0; i < indexes.Size(); ++i) {
    const JsonReader element(indexes[i], element_path(json, "indexes", i), Code::data_loss);
    const IndexEntry& index = m.indexes.emplace_back(read_index_entry(element, i, i + 1 == indexes.Size()));
    segments += index.segments;
    raw_bytes += index.raw_bytes;
    stored_bytes += index.stored_bytes;
  }
  m.segments = json.uint("segments", segments, segments);
  m.raw_bytes = json.uint("raw_bytes", raw_bytes, raw_bytes);
  m.stored_bytes = json.uint("stored_bytes", stored_bytes, stored_bytes);
  m.digest = json.string("digest");
  if (!m.digest.starts_with(kDigestPrefix) || !is_hex(m.digest.substr(kDigestPrefix.size()), kSha256Hex)) {
    throw json.error("digest", "must be sha256: and 64 hexadecimal digits");
  }
  m.dataset_json = to_json(json.object("dataset").value());
  m.requires_list = json.strings("requires");
  return m;
}

}  // namespace

std::string segment_name(std::uint64_t number) {
  return "segment-" + with_zeros(number, 8);
}
std::string index_name(unsigned number) {
  return "index-" + with_zeros(number, 6) + ".json";
}

std::string stream_name(std::string_view format, Codec codec) {
  std::string name = "stream." + std::string(format);
  if (codec != Codec::none) name.append(".").append(codec_suffix(codec));
  return name;
}

SnapshotKeys derive_keys(std::string id, const Key& configured) {
  return {std::move(id), hkdf_sha256(configured, "guestagent1 segment"),
          hkdf_sha256(configured, "guestagent1 document")};
}

std::string write_index(const SegmentIndex& index, const SnapshotKeys* keys) {
  JsonWriter json;
  json.begin_object()
      .member("format_version", kFormatVersion)
      .member("index", index.number)
      .key("segments")
      .begin_array();
  for (const SegmentEntry& segment : index.segments) {
    json.begin_object()
        .member("name", segment.name)
        .member("raw_bytes", segment.raw_bytes)
        .member("stored_bytes", segment.stored_bytes)
        .member("sha256", segment.sha256);
    if (keys == nullptr) json.member("xxh3", segment.xxh3);
    json.end_object();
  }
  json.end_array().end_object();
  return keys == nullptr ? json.text() : authenticated(json.text(), *keys);
}

std::string write_manifest(const Manifest& manifest, const SnapshotKeys* keys) {
  const std::string body = manifest_body(manifest);
  return keys == nullptr ? with_last_member(body, "checksum", checksum(body)) : authenticated(body, *keys);
}

SegmentIndex parse_index(std::string_view text, const SnapshotKeys* keys) {
  const JsonDocument document = parse_document(text, "index");
  const JsonReader json(document, "index", Code::data_loss);
  check_version(json);
  if (keys != nullptr) check_mac(text, *keys, "index");
  SegmentIndex index;
  index.number = static_cast<unsigned>(json.uint("index", 1, 999999));
  const JsonValue& segments = array_member(json, "segments");
  if (segments.Empty() || segments.Size() > kSegmentsPerIndex)
    throw json.error("segments", "must have 1 to 1000 entries");
  for (rapidjson::SizeType i = 0; i < segments.Size(); ++i) {
    const JsonReader element(segments[i], element_path(json, "segments", i), Code::data_loss);
    SegmentEntry& segment = index.segments.emplace_back();
    segment.name = element.string("name");
    const std::string expected = segment_name((index.number - 1) * std::uint64_t{kSegmentsPerIndex} + i + 1);
    if (segment.name != expected) throw element.error("name", "must be " + expected);
    segment.raw_bytes = element.uint("raw_bytes", 1, kMaxSegmentBytes);
    segment.stored_bytes = element.uint("stored_bytes", 1, kMaxStoredBytes);
    segment.sha256 = hex_member(element, "sha256", kSha256Hex);
    if (keys == nullptr) segment.xxh3 = hex_member(element, "xxh3", kXxh3Hex);
  }
  return index;
}

std::optional<std::string> manifest_key_id(std::string_view text) {
  const JsonDocument document = parse_document(text, "manifest");
  const JsonReader json(document, "manifest", Code::data_loss);
  check_version(json);
  check_requires(json);
  return key_id_of(json);
}

Manifest parse_manifest(std::string_view text, const SnapshotKeys* keys) {
  const JsonDocument document = parse_document(text, "manifest");
  const JsonReader json(document, "manifest", Code::data_loss);
  check_version(json);
  check_requires(json);
  const std::optional<std::string> key_id = key_id_of(json);
  if (key_id && (keys == nullptr || keys->id != *key_id)) {
    throw Error(Code::failed_precondition,
                "manifest.encryption.key: \"" + printable(*key_id) + "\" is not configured here",
                "add the key with this id to snapshot.encryption.keys");
  }
  if (key_id) check_mac(text, *keys, "manifest");
  Manifest manifest = read_manifest(json);
  if (!key_id && !equal_in_constant_time(json.string("checksum"), checksum(manifest_body(manifest)))) {
    throw json.error("checksum", "is not that of the other members: the manifest was altered");
  }
  return manifest;
}

void SegmentListDigest::add(const SegmentEntry& segment) {
  const std::string line = segment.name + ' ' + std::to_string(segment.raw_bytes) + ' ' +
                           std::to_string(segment.stored_bytes) + ' ' + segment.sha256 + '\n';
  hasher_.update(as_bytes(line));
}

std::string SegmentListDigest::finish() {
  return std::string(kDigestPrefix) + hasher_.hex();
}

}  // namespace guestagent

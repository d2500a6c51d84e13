// The documents of format version 1, to the letter: other versions and other programs read them.
#include "storage/snapshot_format.h"

#include <gmock/gmock.h>

#include "base/json.h"
#include "tests/support/errors.h"

namespace guestagent {
namespace {

using test::code_of;
using test::error_of;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::string kHash(64, 'a');

Manifest sample() {
  Manifest m;
  m.id = "20260131T235959Z-1f9a3c5e";
  m.created_at = parse_utc("2026-01-31T23:59:59Z");
  m.tool = "mariadb-backup 10.11.19";
  m.format = "xbstream";
  m.codec = Codec::zstd;
  m.indexes = {{"index-000001.json", 2, 300, 200, kHash}};
  m.segments = 2;
  m.raw_bytes = 300;
  m.stored_bytes = 200;
  m.digest = "sha256:" + kHash;
  m.dataset_json = R"({ "version": "10.11.19", "ratio": 1.50 })";
  return m;
}

SegmentIndex sample_index() {
  return {1,
          {{"segment-00000001", 200, 150, kHash, std::string(32, 'b'), {}},
           {"segment-00000002", 100, 50, kHash, std::string(32, 'c'), {}}}};
}

SnapshotKeys sample_keys(char fill = 'k', const std::string& id = "2026") {
  Key key;
  key.fill(static_cast<std::byte>(fill));
  return derive_keys(id, key);
}

std::string changed(const std::string& text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  std::string copy = text;
  return copy.replace(at, from.size(), to);
}

// As an agent of a later version would write it: with a right checksum.
std::string with_checksum_of(const Manifest& m, const std::string& from, const std::string& to) {
  return changed(write_manifest(m, nullptr), from, to);
}

TEST(SnapshotFormat, Names) {
  EXPECT_EQ(segment_name(1), "segment-00000001");
  EXPECT_EQ(segment_name(123456789), "segment-123456789");
  EXPECT_EQ(index_name(31), "index-000031.json");
  EXPECT_EQ(stream_name("xbstream", Codec::zstd), "stream.xbstream.zst");
  EXPECT_EQ(stream_name("tar", Codec::none), "stream.tar");
}

TEST(SnapshotFormat, TheManifestToTheLetter) {
  const std::string body =
      R"({"format_version":1,"id":"20260131T235959Z-1f9a3c5e","created_at":"2026-01-31T23:59:59Z","tool":"mariadb-backup 10.11.19",)"
      R"("format":"xbstream","compression":"zstd","encryption":null,"indexes":[{"name":"index-000001.json","segments":2,)"
      R"("raw_bytes":300,"stored_bytes":200,"sha256":")" +
      kHash + R"("}],"segments":2,"raw_bytes":300,"stored_bytes":200,"digest":"sha256:)" + kHash +
      R"(","dataset":{"version":"10.11.19","ratio":1.5},"requires":[]})";
  const std::string expected =
      body.substr(0, body.size() - 1) + R"(,"checksum":"sha256:)" + sha256_hex(as_bytes(body)) + R"("})";
  EXPECT_EQ(write_manifest(sample(), nullptr), expected);
}

TEST(SnapshotFormat, TheEncryptedManifestToTheLetter) {
  Manifest m = sample();
  m.encryption_key = "2026";
  const SnapshotKeys keys = sample_keys();
  const std::string text = write_manifest(m, &keys);
  EXPECT_THAT(text, HasSubstr(R"("encryption":{"algorithm":"AES-256-GCM","key":"2026"})"));
  const std::size_t tail = std::string(R"(,"hmac":"")").size() + 64 + 1;
  const std::string body = text.substr(0, text.size() - tail) + "}";
  EXPECT_EQ(text.substr(text.size() - tail), R"(,"hmac":")" + hmac_sha256_hex(keys.document, as_bytes(body)) + R"("})");
  EXPECT_THAT(text, ::testing::Not(HasSubstr("checksum")));
}

TEST(SnapshotFormat, TheManifestComesBack) {
  for (const bool encrypted : {false, true}) {
    const SnapshotKeys keys = sample_keys();
    const SnapshotKeys* with = encrypted ? &keys : nullptr;
    Manifest m = sample();
    if (encrypted) m.encryption_key = keys.id;
    m.requires_list = {"dataset.something"};
    const std::string text = write_manifest(m, with);
    EXPECT_EQ(manifest_key_id(text), m.encryption_key);
    const Manifest back = parse_manifest(text, with);
    EXPECT_EQ(write_manifest(back, with), text);
    EXPECT_EQ(back.id, m.id);
    EXPECT_EQ(back.created_at, m.created_at);
    EXPECT_EQ(back.requires_list, m.requires_list);
    EXPECT_EQ(back.indexes.at(0).sha256, kHash);
  }
}

TEST(SnapshotFormat, TheIndexToTheLetterAndBack) {
  const std::string text = write_index(sample_index(), nullptr);
  EXPECT_EQ(
      text,
      R"({"format_version":1,"index":1,"segments":[{"name":"segment-00000001","raw_bytes":200,"stored_bytes":150,"sha256":")" +
          kHash +
          R"(","xxh3":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"},{"name":"segment-00000002","raw_bytes":100,"stored_bytes":50,"sha256":")" +
          kHash + R"(","xxh3":"cccccccccccccccccccccccccccccccc"}]})");
  EXPECT_EQ(write_index(parse_index(text, nullptr), nullptr), text);
  const SnapshotKeys keys = sample_keys();
  const std::string encrypted = write_index(sample_index(), &keys);
  EXPECT_THAT(encrypted, ::testing::Not(HasSubstr("xxh3")));
  EXPECT_EQ(write_index(parse_index(encrypted, &keys), &keys), encrypted);
}

TEST(SnapshotFormat, TheDigestIsOverLines) {
  SegmentListDigest digest;
  for (const SegmentEntry& segment : sample_index().segments) digest.add(segment);
  const std::string lines = "segment-00000001 200 150 " + kHash + "\nsegment-00000002 100 50 " + kHash + "\n";
  EXPECT_EQ(digest.finish(), "sha256:" + sha256_hex(as_bytes(lines)));
}

TEST(SnapshotFormat, NewerAgentsMayAddMembers) {
  const std::string text = with_checksum_of(sample(), R"("format_version":1)", R"("format_version":1,"lz":{"a":[1]})");
  EXPECT_EQ(parse_manifest(text, nullptr).id, sample().id);
  const std::string later =
      changed(write_manifest(sample(), nullptr), R"("requires":[])", R"("requires":[],"more":"x")");
  EXPECT_EQ(parse_manifest(later, nullptr).id, sample().id);
  EXPECT_EQ(parse_index(changed(write_index(sample_index(), nullptr), R"("index":1)", R"("index":1,"more":2)"), nullptr)
                .number,
            1U);
}

TEST(SnapshotFormat, WhatANewerAgentRequiresIsRefusedWithAHint) {
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {R"("format_version":1)", R"("format_version":2)"},
           {R"("requires":[])", R"("requires":["parity"])"},
           {R"("encryption":null)", R"("encryption":{"algorithm":"ROT13","key":"a"})"},
           {R"("encryption":null)", R"("encryption":{"algorithm":"AES-256-GCM","key":"a"})"}}) {
    const std::string text = changed(write_manifest(sample(), nullptr), from, to);
    const Error error = error_of([&] { parse_manifest(text, nullptr); });
    EXPECT_EQ(error.code(), Code::failed_precondition) << to;
    EXPECT_NE(error.hint(), "") << to;
  }
  EXPECT_EQ(code_of([&] {
              parse_index(changed(write_index(sample_index(), nullptr), R"(version":1)", R"(version":2)"), nullptr);
            }),
            "FAILED_PRECONDITION");
}

TEST(SnapshotFormat, ManifestsThatContradictThemselvesAreDataLoss) {
  const auto refused = [](const std::string& what, const std::function<void(Manifest&)>& change) {
    Manifest m = sample();
    change(m);
    EXPECT_EQ(code_of([&] { parse_manifest(write_manifest(m, nullptr), nullptr); }), "DATA_LOSS") << what;
  };
  refused("no index", [](Manifest& m) { m.indexes.clear(); });
  refused("another name", [](Manifest& m) { m.indexes[0].name = "index-000002.json"; });
  refused("a path", [](Manifest& m) { m.indexes[0].name = "../index-000001.json"; });
  refused("segments", [](Manifest& m) { m.segments = 3; });
  refused("raw bytes", [](Manifest& m) { ++m.raw_bytes; });
  refused("stored bytes", [](Manifest& m) { --m.stored_bytes; });
  refused("more than 1000", [](Manifest& m) { m.segments = m.indexes[0].segments = 1001; });
  refused("an index of nothing", [](Manifest& m) { m.segments = m.indexes[0].segments = 0; });
  refused("less than a byte a segment", [](Manifest& m) { m.raw_bytes = m.indexes[0].raw_bytes = 1; });
  refused("segments too large", [](Manifest& m) { m.raw_bytes = m.indexes[0].raw_bytes = 3 * kMaxSegmentBytes; });
  refused("upper-case digest", [](Manifest& m) { m.indexes[0].sha256 = std::string(64, 'A'); });
  refused("short digest", [](Manifest& m) { m.digest = "sha256:abc"; });
  refused("another kind of digest", [](Manifest& m) { m.digest = "sha512:" + kHash; });
  refused("id", [](Manifest& m) { m.id = "../../etc"; });
  refused("a middle index that is not full", [](Manifest& m) {
    m.indexes.push_back({"index-000002.json", 1, 10, 10, kHash});
    m.segments = 3;
    m.raw_bytes = 310;
    m.stored_bytes = 210;
  });
  refused("sums that overflow", [](Manifest& m) {
    m.indexes[0].raw_bytes = UINT64_MAX;
    m.raw_bytes = UINT64_MAX;
  });
}

TEST(SnapshotFormat, IndexesThatAreWrongAreDataLoss) {
  const auto refused = [](const std::string& what, const std::function<void(SegmentIndex&)>& change) {
    SegmentIndex index = sample_index();
    change(index);
    EXPECT_EQ(code_of([&] { parse_index(write_index(index, nullptr), nullptr); }), "DATA_LOSS") << what;
  };
  refused("number 0", [](SegmentIndex& i) { i.number = 0; });
  refused("another number", [](SegmentIndex& i) { i.number = 2; });
  refused("nothing", [](SegmentIndex& i) { i.segments.clear(); });
  refused("a gap", [](SegmentIndex& i) { i.segments[1].name = segment_name(3); });
  refused("twice the same", [](SegmentIndex& i) { i.segments[1].name = segment_name(1); });
  refused("swapped", [](SegmentIndex& i) { std::swap(i.segments[0], i.segments[1]); });
  refused("a path", [](SegmentIndex& i) { i.segments[0].name = "../segment-00000001"; });
  refused("nothing in a segment", [](SegmentIndex& i) { i.segments[0].raw_bytes = 0; });
  refused("too much in a segment", [](SegmentIndex& i) { i.segments[0].raw_bytes = kMaxSegmentBytes + 1; });
  refused("too much stored", [](SegmentIndex& i) { i.segments[0].stored_bytes = kMaxStoredBytes + 1; });
  refused("no sha256", [](SegmentIndex& i) { i.segments[0].sha256.clear(); });
  refused("a short xxh3", [](SegmentIndex& i) { i.segments[0].xxh3.pop_back(); });
}

TEST(SnapshotFormat, WithAKeyAnyOtherByteIsRefused) {
  const SnapshotKeys keys = sample_keys();
  Manifest m = sample();
  m.encryption_key = keys.id;
  const std::string manifest = write_manifest(m, &keys);
  const std::string index = write_index(sample_index(), &keys);
  for (const std::string added : {R"("requires":[],"more":1)", R"("requires": [])"}) {
    EXPECT_EQ(code_of([&] { parse_manifest(changed(manifest, R"("requires":[])", added), &keys); }), "DATA_LOSS");
  }
  EXPECT_EQ(code_of([&] { parse_manifest(manifest + ' ', &keys); }), "DATA_LOSS");
  EXPECT_EQ(code_of([&] { parse_index(changed(index, "150", "151"), &keys); }), "DATA_LOSS");
  const SnapshotKeys same_id = sample_keys('x');
  EXPECT_EQ(code_of([&] { parse_manifest(manifest, &same_id); }), "DATA_LOSS");
  const SnapshotKeys other_id = sample_keys('k', "2027");
  EXPECT_EQ(code_of([&] { parse_manifest(manifest, &other_id); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { parse_manifest(manifest, nullptr); }), "FAILED_PRECONDITION");
  // Without the key's mark it is a document that nobody vouches for.
  const std::string stripped = changed(manifest, R"({"algorithm":"AES-256-GCM","key":"2026"})", "null");
  EXPECT_EQ(code_of([&] { parse_manifest(stripped, nullptr); }), "DATA_LOSS");
}

TEST(SnapshotFormat, HostileTextIsDataLoss) {
  std::string deep(100000, '[');
  for (const std::string& text :
       {std::string(), std::string("null"), std::string("[]"), std::string("{}"), std::string("{\"format_version\":1}"),
        std::string("{\"format_version\":0}"), std::string("{\"format_version\":-1}"),
        std::string("{\"format_version\":1.0}"), std::string("\xff\xfe"), deep, std::string(1000, '\0'),
        R"({"format_version":1,"format_version":1})" + std::string()}) {
    EXPECT_EQ(code_of([&] { parse_manifest(text, nullptr); }), "DATA_LOSS") << text.substr(0, 40);
    EXPECT_EQ(code_of([&] { parse_index(text, nullptr); }), "DATA_LOSS") << text.substr(0, 40);
    EXPECT_EQ(code_of([&] { manifest_key_id(text); }), "DATA_LOSS") << text.substr(0, 40);
  }
}

TEST(SnapshotFormat, ADatasetThatIsNoObjectIsTheCallersMistake) {
  for (const std::string dataset : {"", "1", "[]", "{", "null"}) {
    Manifest m = sample();
    m.dataset_json = dataset;
    EXPECT_EQ(code_of([&] { write_manifest(m, nullptr); }), "INVALID_ARGUMENT") << dataset;
  }
}

TEST(SnapshotFormat, KeysForSegmentsAndDocumentsDiffer) {
  const SnapshotKeys keys = sample_keys();
  EXPECT_NE(keys.segment, keys.document);
  Key configured;
  configured.fill(static_cast<std::byte>('k'));
  EXPECT_NE(keys.segment, configured);
}

}  // namespace
}  // namespace guestagent

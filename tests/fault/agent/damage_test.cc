// A stored snapshot with anything wrong with it is refused by attach before the target's old data is touched.
#include <gmock/gmock.h>

#include <iostream>

#include "storage/snapshot_format.h"
#include "tests/support/bytes.h"
#include "tests/unit/agent/agent_fixture.h"

namespace guestagent {
namespace {

class DamageTest : public test::AgentFixture {
 protected:
  static constexpr std::size_t kSegments = 5;

  DamageTest() {
    data = test::page_bytes(kSegments * (1 << 20) - 70000, 1);
    metadata_ = dispatcher.call("get_replication_snapshot", R"({"snapshot_id":"snap"})");
    good_ = store.objects();
    manifest_ = parse_manifest(good_.at(kManifest), nullptr);
    index_ = parse_index(good_.at(kIndex), nullptr);
    EXPECT_CALL(datastore, install).Times(0);
  }

  static std::string segment(std::size_t n) { return "snap/" + segment_name(n); }

  // Attaches the snapshot with `change` made to its objects.
  void refused(const std::string& what, const std::function<void()>& change) {
    SCOPED_TRACE(what);
    change();
    const Error error = failure("attach_replication_slave", R"({"snapshot":)" + metadata_ + "}");
    EXPECT_THAT(error.code(), testing::AnyOf(Code::data_loss, Code::failed_precondition, Code::invalid_argument))
        << error.what();
    for (const auto& [name, body] : good_) store.set(name, body);
    ++cases_;
  }
  // The same with a manifest that is sealed again, as one who knows the format can.
  void refused_manifest(const std::string& what, const std::function<void(Manifest&)>& edit) {
    refused("sealed again: " + what, [&] {
      Manifest changed = manifest_;
      edit(changed);
      store.set(kManifest, write_manifest(changed, nullptr));
    });
  }
  // An index with other entries, and a manifest that fits it in all but the totals and the digest over all.
  void refused_index(const std::string& what, const std::function<void(std::vector<SegmentEntry>&)>& edit) {
    refused("sealed again: " + what, [&] {
      SegmentIndex changed = index_;
      edit(changed.segments);
      const std::string text = write_index(changed, nullptr);
      Manifest manifest = manifest_;
      IndexEntry& entry = manifest.indexes.at(0);
      entry.segments = changed.segments.size();
      entry.raw_bytes = entry.stored_bytes = 0;
      for (const SegmentEntry& each : changed.segments) {
        entry.raw_bytes += each.raw_bytes;
        entry.stored_bytes += each.stored_bytes;
      }
      entry.sha256 = sha256_hex(as_bytes(text));
      manifest.segments = entry.segments;
      manifest.raw_bytes = entry.raw_bytes;
      manifest.stored_bytes = entry.stored_bytes;
      store.set(kIndex, text);
      store.set(kManifest, write_manifest(manifest, nullptr));
    });
  }

  static constexpr const char* kManifest = "snap/manifest.json";
  static constexpr const char* kIndex = "snap/index-000001.json";
  std::string metadata_;
  std::map<std::string, std::string> good_;
  Manifest manifest_;
  SegmentIndex index_;
  unsigned cases_ = 0;
};

TEST_F(DamageTest, IsRefusedBeforeTheOldDataIsTouched) {
  ASSERT_EQ(index_.segments.size(), kSegments);
  for (std::size_t n = 1; n <= kSegments; ++n) {
    const std::string name = segment(n), number = std::to_string(n);
    const std::string& bytes = good_.at(name);
    refused("cut before " + number, [&] {
      for (std::size_t lost = n; lost <= kSegments; ++lost) store.erase(segment(lost));
    });
    if (n < kSegments) {
      refused_index("cut after " + number, [&](auto& entries) { entries.resize(n); });
    }
    refused("dropped " + number, [&] { store.erase(name); });
    refused_index("dropped " + number,
                  [&](auto& entries) { entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(n - 1)); });
    refused_index("twice " + number, [&](auto& entries) {
      entries.insert(entries.begin() + static_cast<std::ptrdiff_t>(n), entries[n - 1]);
    });
    for (std::size_t m = 1; m <= kSegments; ++m) {
      if (m == n) continue;
      refused(std::to_string(m) + " in place of " + number, [&] { store.set(name, good_.at(segment(m))); });
      if (m < n) continue;
      refused(number + " and " + std::to_string(m) + " swapped", [&] {
        store.set(name, good_.at(segment(m)));
        store.set(segment(m), bytes);
      });
      refused_index(number + " and " + std::to_string(m) + " swapped",
                    [&](auto& entries) { std::swap(entries[n - 1], entries[m - 1]); });
    }
    for (std::size_t part = 0; part < 8; ++part) {
      refused("bit flipped in " + number, [&] {
        std::string flipped = bytes;
        const std::size_t at = (flipped.size() - 1) * part / 7;
        flipped[at] = static_cast<char>(flipped[at] ^ (1 << part));
        store.set(name, flipped);
      });
    }
    refused("shorter " + number, [&] { store.set(name, bytes.substr(0, bytes.size() - 1)); });
    refused("longer " + number, [&] { store.set(name, bytes + bytes.back()); });
    refused_index("size of " + number, [&](auto& entries) { ++entries[n - 1].raw_bytes; });
    refused_index("stored size of " + number, [&](auto& entries) { --entries[n - 1].stored_bytes; });
    refused_index("digest of " + number, [&](auto& entries) { entries[n - 1].sha256.front() ^= 1; });
    refused_index("raw digest of " + number, [&](auto& entries) { entries[n - 1].xxh3.front() ^= 1; });
    refused_index("name of " + number, [&](auto& entries) { entries[n - 1].name = segment_name(n % kSegments + 1); });
  }
  const JsonDocument original = parse_json(good_.at(kManifest), "manifest");
  for (const auto& member : original.GetObject()) {
    const std::string key = member.name.GetString();
    const auto edited = [&](const std::string& what, const std::function<void(JsonDocument&)>& edit) {
      refused(key + what, [&] {
        JsonDocument changed = parse_json(good_.at(kManifest), "manifest");
        edit(changed);
        store.set(kManifest, to_json(changed));
      });
    };
    edited(" gone", [&](JsonDocument& d) { d.RemoveMember(key.c_str()); });
    edited(" null", [&](JsonDocument& d) {
      if (d[key.c_str()].IsNull()) {
        d[key.c_str()].SetString("x");
      } else {
        d[key.c_str()].SetNull();
      }
    });
    if (member.value.IsUint64()) {
      edited(" one more", [&](JsonDocument& d) { d[key.c_str()].SetUint64(d[key.c_str()].GetUint64() + 1); });
      edited(" zero", [&](JsonDocument& d) { d[key.c_str()].SetUint64(0); });
    } else if (member.value.IsString()) {
      edited(" another", [&](JsonDocument& d) {
        std::string text = d[key.c_str()].GetString();
        text.back() = text.back() == '1' ? '2' : '1';
        d[key.c_str()].SetString(text, d.GetAllocator());
      });
    }
  }
  refused_manifest("id", [](Manifest& m) { m.id = "other"; });
  refused_manifest("compression", [](Manifest& m) { m.codec = Codec::lz4; });
  refused_manifest("no compression", [](Manifest& m) { m.codec = Codec::none; });
  refused_manifest("format", [](Manifest& m) { m.format = "tar"; });
  refused_manifest("key", [](Manifest& m) { m.encryption_key = "k1"; });
  refused_manifest("requires", [](Manifest& m) { m.requires_list = {"time travel"}; });
  refused_manifest("segments", [](Manifest& m) { ++m.segments; });
  refused_manifest("raw bytes", [](Manifest& m) { ++m.raw_bytes; });
  refused_manifest("stored bytes", [](Manifest& m) { --m.stored_bytes; });
  refused_manifest("digest", [](Manifest& m) { m.digest.back() = m.digest.back() == '0' ? '1' : '0'; });
  refused_manifest("no index", [](Manifest& m) { m.indexes.clear(); });
  refused_manifest("an index twice", [](Manifest& m) { m.indexes.push_back(m.indexes.front()); });
  refused_manifest("index's digest", [](Manifest& m) { m.indexes[0].sha256.front() ^= 1; });
  refused_manifest("index's name", [](Manifest& m) { m.indexes[0].name = index_name(2); });
  refused_manifest("index's segments", [](Manifest& m) { ++m.indexes[0].segments; });
  refused_manifest("index's raw bytes", [](Manifest& m) { ++m.indexes[0].raw_bytes; });
  refused_manifest("index's stored bytes", [](Manifest& m) { ++m.indexes[0].stored_bytes; });
  refused("no index", [&] { store.erase(kIndex); });
  std::cout << "stream completeness: " << cases_ << " cases, " << (HasFailure() ? "some accepted" : "0 accepted")
            << '\n';
}

}  // namespace
}  // namespace guestagent

// Everything that can be wrong with the objects of a snapshot is noticed before its stream ends well.
#include <gmock/gmock.h>

#include "base/json.h"
#include "tests/support/snapshot_fixture.h"

namespace guestagent {
namespace {

using test::code_of;
using test::MemoryStore;
using test::page_bytes;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::size_t kSegments = 6;

class SnapshotDamage : public test::SnapshotFixture, public ::testing::WithParamInterface<bool> {
 protected:
  SnapshotDamage() {
    if (GetParam()) use_key("k1", 'k');
    bytes = page_bytes(kSegments * kSegment - 3000, 1);
    write(bytes);
    write(page_bytes(kSegments * kSegment - 3000, 2), "other");
  }

  static std::string segment(std::size_t n, const std::string& id = "snap") { return id + '/' + segment_name(n); }

  // The snapshot with one thing changed is refused as lost data; the message names `named`.
  void expect_loss(const std::function<void(MemoryStore&)>& change, const std::string& named) {
    const auto changed = store.copy();
    change(*changed);
    const std::string failure = reading_fails_with(*changed);
    EXPECT_THAT(failure, StartsWith("DATA_LOSS: ")) << named;
    EXPECT_THAT(failure, HasSubstr(named));
  }

  std::string bytes;
};

INSTANTIATE_TEST_SUITE_P(, SnapshotDamage, ::testing::Bool(),
                         [](const auto& encrypted) { return encrypted.param ? "encrypted" : "clear"; });

TEST_P(SnapshotDamage, UnharmedItIsRead) {
  EXPECT_EQ(read(store), bytes);
  const VerifyResult result = verify_snapshot(store, store.href("snap/manifest.json"), settings, throttle, job);
  EXPECT_EQ(result.segments, kSegments);
  EXPECT_EQ(result.raw_bytes, bytes.size());
}

TEST_P(SnapshotDamage, CutAtEverySegment) {
  for (std::size_t first_lost = 1; first_lost <= kSegments; ++first_lost) {
    expect_loss(
        [&](MemoryStore& changed) {
          for (std::size_t n = first_lost; n <= kSegments; ++n) changed.erase(segment(n));
        },
        segment(first_lost));
  }
}

TEST_P(SnapshotDamage, EverySegmentDropped) {
  for (std::size_t n = 1; n <= kSegments; ++n) {
    expect_loss([&](MemoryStore& changed) { changed.erase(segment(n)); }, segment(n));
  }
}

TEST_P(SnapshotDamage, EverySegmentReplacedByAnother) {
  for (std::size_t n = 1; n <= kSegments; ++n) {
    for (std::size_t m = 1; m <= kSegments; ++m) {
      if (n != m)
        expect_loss([&](MemoryStore& changed) { changed.set(segment(n), store.text(segment(m))); }, segment(n));
    }
    expect_loss([&](MemoryStore& changed) { changed.set(segment(n), store.text(segment(n, "other"))); }, segment(n));
  }
}

TEST_P(SnapshotDamage, NeighboursSwapped) {
  for (std::size_t n = 1; n < kSegments; ++n) {
    expect_loss(
        [&](MemoryStore& changed) {
          changed.set(segment(n), store.text(segment(n + 1)));
          changed.set(segment(n + 1), store.text(segment(n)));
        },
        segment(n));
  }
}

TEST_P(SnapshotDamage, ABitFlippedAnywhereInEverySegment) {
  for (std::size_t n = 1; n <= kSegments; ++n) {
    const std::string good = store.text(segment(n));
    for (std::size_t bit = 0; bit < good.size() * 8; bit += good.size() / 3) {
      std::string flipped = good;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
      expect_loss([&](MemoryStore& changed) { changed.set(segment(n), flipped); }, segment(n));
    }
  }
}

TEST_P(SnapshotDamage, SegmentsShorterAndLonger) {
  for (std::size_t n = 1; n <= kSegments; ++n) {
    const std::string good = store.text(segment(n));
    for (const std::string& wrong :
         {std::string(), good.substr(0, 1), good.substr(0, good.size() - 1), good + '\0', good + good}) {
      expect_loss([&](MemoryStore& changed) { changed.set(segment(n), wrong); }, segment(n));
    }
  }
}

TEST_P(SnapshotDamage, IndexLostReplacedOrChanged) {
  const std::string index = "snap/index-000001.json";
  expect_loss([&](MemoryStore& changed) { changed.erase(index); }, index);
  expect_loss([&](MemoryStore& changed) { changed.set(index, store.text("other/index-000001.json")); }, index);
  expect_loss([&](MemoryStore& changed) { changed.set(index, std::string(kMaxIndexBytes + 1, ' ')); }, index);
  const std::string good = store.text(index);
  for (std::size_t at = 0; at < good.size(); at += 7) {
    std::string flipped = good;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    expect_loss([&](MemoryStore& changed) { changed.set(index, flipped); }, index);
  }
}

TEST_P(SnapshotDamage, EveryByteOfTheManifest) {
  const std::string manifest = "snap/manifest.json";
  const std::string good = store.text(manifest);
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const int bit : {0, 1, 5}) {
      std::string flipped = good;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << bit));
      const auto changed = store.copy();
      changed->set(manifest, flipped);
      const std::string failure = reading_fails_with(*changed);
      EXPECT_NE(failure, "") << "byte " << at << " of\n" << flipped;
      // A version or a key that is not known is for an operator to mend; all the rest is damage.
      EXPECT_TRUE(failure.starts_with("DATA_LOSS: ") || failure.starts_with("FAILED_PRECONDITION: ")) << failure;
    }
  }
  for (std::size_t size = 0; size < good.size(); size += 3) {
    expect_loss([&](MemoryStore& changed) { changed.set(manifest, good.substr(0, size)); }, "manifest");
  }
  expect_loss([&](MemoryStore& changed) { changed.set(manifest, store.text("other/manifest.json")); },
              "another snapshot");
  expect_loss([&](MemoryStore& changed) { changed.set(manifest, std::string(kMaxManifestBytes + 1, ' ')); },
              "manifest");
}

TEST_P(SnapshotDamage, VerifySaysSo) {
  store.on_get = [](const std::string& name, std::string& body) {
    if (name == segment(4)) body[10] = static_cast<char>(body[10] ^ 4);
  };
  const Error error =
      test::error_of([&] { verify_snapshot(store, store.href("snap/manifest.json"), settings, throttle, job); });
  EXPECT_EQ(error.code(), Code::data_loss);
  EXPECT_THAT(error.what(), HasSubstr(segment(4)));
}

TEST_P(SnapshotDamage, NoManifestIsNotFound) {
  store.erase("snap/manifest.json");
  EXPECT_THAT(reading_fails_with(store), StartsWith("NOT_FOUND: "));
}

TEST_P(SnapshotDamage, EveryMemberOfTheManifestTakenAwayOrChanged) {
  const std::string good = store.text("snap/manifest.json");
  std::size_t members = 0;
  const auto try_changed = [&](const std::string& what, const std::function<void(JsonDocument&, JsonValue&)>& change) {
    JsonDocument document = parse_json(good, "manifest");
    change(document, document);
    const auto changed = store.copy();
    changed->set("snap/manifest.json", to_json(document));
    EXPECT_NE(reading_fails_with(*changed), "") << what;
  };
  const JsonDocument original = parse_json(good, "manifest");
  for (const auto& member : original.GetObject()) {
    const std::string key = member.name.GetString();
    ++members;
    try_changed(key + " gone", [&](JsonDocument&, JsonValue& object) { object.RemoveMember(key.c_str()); });
    try_changed(key + " of another type", [&](JsonDocument&, JsonValue& object) { object[key.c_str()].SetBool(true); });
    if (member.value.IsUint64()) {
      for (const std::uint64_t other :
           {std::uint64_t{0}, member.value.GetUint64() + 1, member.value.GetUint64() - 1, UINT64_MAX}) {
        try_changed(key + " = " + std::to_string(other),
                    [&](JsonDocument&, JsonValue& object) { object[key.c_str()].SetUint64(other); });
      }
    } else if (member.value.IsString()) {
      try_changed(key + " changed", [&](JsonDocument& document, JsonValue& object) {
        std::string text = object[key.c_str()].GetString();
        text.back() = text.back() == '1' ? '2' : '1';
        object[key.c_str()].SetString(text, document.GetAllocator());
      });
    } else {
      try_changed(key + " replaced", [&](JsonDocument& document, JsonValue& object) {
        JsonValue& value = object[key.c_str()];
        if (value.IsArray() && value.Empty()) {
          value.PushBack("something new", document.GetAllocator());
        } else if (value.IsArray()) {
          value.SetArray();
        } else {
          value.SetObject();
        }
      });
    }
  }
  EXPECT_EQ(members, 15U);
}

}  // namespace
}  // namespace guestagent

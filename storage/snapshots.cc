#include "storage/snapshots.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <vector>

#include "base/secret.h"
#include "base/text.h"
#include "storage/snapshot_format.h"
#include "storage/snapshot_reader.h"
#include "stream/ordered_tasks.h"

namespace guestagent {
namespace {

constexpr unsigned kDeleteRequests = 8;
constexpr std::size_t kNamesInError = 5;
// A listing may lag behind the writes of a job that has just died: so many segments past the last listed one are asked for by name.
constexpr std::uint64_t kUnlistedSegments = 16;
constexpr unsigned kDeleteRounds = 3;
constexpr std::string_view kSegmentPrefix = "segment-";
constexpr std::string_view kStreamPrefix = "stream.";

// What is to be deleted by name although the listing does not tell of it.
std::vector<std::string> unlisted_segments(const std::set<std::string>& listed, const std::string& root) {
  std::uint64_t highest = 0;
  for (const std::string& name : listed) {
    const std::string_view leaf = std::string_view(name).substr(root.size());
    if (!leaf.starts_with(kSegmentPrefix)) continue;
    std::uint64_t number = 0;
    const auto digits = leaf.substr(kSegmentPrefix.size());
    const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (end.ec == std::errc() && leaf == segment_name(number)) highest = std::max(highest, number);
  }
  // A foreign object with a wild number must not become a million requests.
  if (highest > listed.size() * 2 + kUnlistedSegments) highest = 0;
  std::vector<std::string> names;
  for (std::uint64_t n = 1; n <= highest + kUnlistedSegments; ++n) {
    std::string name = root + segment_name(n);
    if (!listed.contains(name)) names.push_back(std::move(name));
  }
  return names;
}

struct Removal {
  std::set<std::string> removed;
  std::vector<std::string> failed;
  std::optional<Failure> first_failure;

  // Answers those that were there.
  std::vector<std::string> run(ObjectStore& store, const std::vector<std::string>& names, std::stop_token stop) {
    struct Outcome {
      bool removed = false;
      std::optional<Failure> failure;
    };
    std::vector<std::string> found;
    if (names.empty()) return found;
    WorkerPool pool(static_cast<unsigned>(std::min<std::size_t>(kDeleteRequests, names.size())));
    InOrder<Outcome> outcomes(kDeleteRequests * 2);
    std::size_t taken = 0;
    const auto take = [&] {
      Outcome outcome = outcomes.take();
      const std::string& name = names[taken++];
      if (outcome.removed) {
        removed.insert(name);
        found.push_back(name);
      }
      if (!outcome.failure) return;
      failed.push_back(name);
      if (!first_failure) first_failure = std::move(outcome.failure);
    };
    for (const std::string& name : names) {
      if (outcomes.full()) take();
      outcomes.add(pool.run([&store, &name, stop]() -> Outcome {
        try {
          return {store.remove(name, stop), std::nullopt};
        } catch (const std::exception& e) {
          return {false, Failure(e)};
        }
      }));
    }
    while (!outcomes.empty()) take();
    return found;
  }

  static std::string shown(const std::vector<std::string>& all) {
    std::string names;
    for (std::size_t i = 0; i < std::min(all.size(), kNamesInError); ++i) names += (i == 0 ? "" : ", ") + all[i];
    if (all.size() > kNamesInError) names += " and " + std::to_string(all.size() - kNamesInError) + " more";
    return names;
  }

  void throw_if_failed(std::string_view id) const {
    if (failed.empty()) return;
    throw Error(first_failure->code,
                "deleting snapshot " + std::string(id) + ": " + shown(failed) + " could not be removed: " + first_failure->message,
                "delete it again when the store answers");
  }
};

}  // namespace

bool valid_id(std::string_view id) {
  const auto alphanumeric = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); };
  return !id.empty() && id.size() <= 64 && alphanumeric(id.front()) && std::all_of(id.begin(), id.end(), [&](char c) {
    return alphanumeric(c) || c == '.' || c == '_' || c == '-';
  });
}

std::string new_snapshot_id(Clock& clock) {
  std::string time = format_utc(clock.now());
  std::erase_if(time, [](char c) { return c == '-' || c == ':'; });
  return time + '-' + random_hex(4);
}

std::string snapshot_id_of(const ObjectStore& store, std::string_view href) {
  const std::string doing = "looking at a snapshot's address: " + printable(href, 300);
  const std::optional<std::string> name = store.name_of(href);
  if (!name) {
    throw Error(Code::permission_denied, doing + ": it is not under the configured store",
                "snapshots are read only from the store in the configuration (storage)");
  }
  const std::size_t slash = name->find('/');
  const std::string id = name->substr(0, slash);
  if (slash == std::string::npos || name->substr(slash + 1) != kManifestName || !valid_id(id)) {
    throw Error(Code::invalid_argument, doing + ": it names no manifest", "it ends in SNAPSHOT_ID/manifest.json");
  }
  return id;
}

std::vector<SnapshotListing> list_snapshots(ObjectStore& store, std::stop_token stop) {
  std::vector<SnapshotListing> snapshots;
  store.list(
      "",
      [&](const ObjectInfo& object) {
        const std::size_t slash = object.name.find('/');
        if (slash == std::string::npos) return;
        const std::string id = object.name.substr(0, slash);
        const std::string_view leaf = std::string_view(object.name).substr(slash + 1);
        if (!valid_id(id)) return;
        if (snapshots.empty() || snapshots.back().id != id) {
          SnapshotListing& fresh = snapshots.emplace_back();
          fresh.id = id;
          fresh.created_at = object.modified;
        }
        SnapshotListing& snapshot = snapshots.back();
        snapshot.created_at = std::min(snapshot.created_at, object.modified);
        if (leaf == kManifestName) snapshot.complete = true;
        // A joined object has no bytes of its own, but some stores list it with those of its parts.
        if (!leaf.starts_with(kStreamPrefix)) snapshot.stored_bytes += object.size;
      },
      stop);
  for (SnapshotListing& snapshot : snapshots) snapshot.href = store.href(snapshot.id + '/' + std::string(kManifestName));
  return snapshots;
}

std::uint64_t delete_snapshot(ObjectStore& store, std::string_view id, std::stop_token stop) {
  if (!valid_id(id)) throw Error(Code::invalid_argument, "deleting snapshot " + printable(id) + ": it is no snapshot's id");
  const std::string root = std::string(id) + '/';
  const std::string manifest = root + std::string(kManifestName);
  Removal removal;
  // Without its manifest it is no snapshot any more, whatever happens from here on.
  removal.run(store, {manifest}, stop);
  removal.throw_if_failed(id);
  // It is gone when a listing tells nothing more, or only what is no longer there: a listing may lag behind, and what was not found may
  // still be there on another of the store's servers.
  for (unsigned round = 1;; ++round) {
    std::set<std::string> listed;
    with_context("deleting snapshot " + std::string(id),
                 [&] { store.list(root, [&](const ObjectInfo& object) { listed.insert(object.name); }, stop); });
    const std::vector<std::string> found = removal.run(store, {listed.begin(), listed.end()}, stop);
    if (round == 1) removal.run(store, unlisted_segments(listed, root), stop);
    removal.throw_if_failed(id);
    if (round > 1 && found.empty()) break;
    if (round > kDeleteRounds) {
      throw Error(Code::unavailable,
                  "deleting snapshot " + std::string(id) + ": the store says each time that it has removed them, and still has " +
                      Removal::shown(found),
                  "see whether something else writes there, or the store keeps objects (a lock, a retention time); then delete it again");
    }
  }
  return removal.removed.size();
}

VerifyResult verify_snapshot(ObjectStore& store, std::string_view href, const SnapshotSettings& settings, Throttle& throttle,
                             JobContext& job) {
  SnapshotReader reader(store, href, settings, throttle, job);
  std::vector<std::byte> discarded(kChunkBytes);
  while (reader.read(discarded) > 0) {
  }
  const Manifest& manifest = reader.manifest();
  return {manifest.segments, manifest.raw_bytes, manifest.stored_bytes, manifest.encryption_key};
}

}  // namespace guestagent

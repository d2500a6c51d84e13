#include "storage/snapshots.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <vector>

#include "base/id.h"
#include "base/text.h"
#include "storage/snapshot_format.h"
#include "storage/snapshot_reader.h"
#include "stream/ordered_tasks.h"

namespace guestagent {
namespace {

constexpr unsigned kDeleteRequests = 8;
constexpr std::size_t kNamesInError = 5;
// A listing may lag behind the writes of a job that has just died: so many segments past the last listed one are asked
// for by name.
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

  // Answers those that were there, as far as a store knows that has been asked twice. `listed`: a listing has told of
  // them; of others it is asked first whether they are there, since a removal that is repeated does not say it.
  std::vector<std::string> run(ObjectStore& store, const std::vector<std::string>& names, bool listed,
                               std::stop_token stop) {
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
      outcomes.add(pool.run([&store, &name, listed, stop]() -> Outcome {
        try {
          const bool there = listed || store.stat(name, stop).has_value();
          return {store.remove(name, stop) && there, std::nullopt};
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
                "deleting snapshot " + std::string(id) + ": " + shown(failed) +
                    " could not be removed: " + first_failure->message,
                "delete it again when the store answers");
  }
};

}  // namespace

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
  for (SnapshotListing& snapshot : snapshots)
    snapshot.href = store.href(snapshot.id + '/' + std::string(kManifestName));
  return snapshots;
}

namespace {

std::string in_snapshot(std::string_view id, std::string_view leaf) {
  return std::string(id) + '/' + std::string(leaf);
}

bool has_manifest(ObjectStore& store, std::string_view id, const std::stop_token& stop) {
  return store.stat(in_snapshot(id, kManifestName), stop).has_value();
}

// REQUIRES: the claim is the caller's, where the store could take one: it keeps others away and goes last.
std::uint64_t remove_all(ObjectStore& store, std::string_view id, const std::stop_token& stop) {
  const std::string root = in_snapshot(id, "");
  const std::string manifest = in_snapshot(id, kManifestName);
  const std::string claim = in_snapshot(id, kClaimName);
  Removal removal;
  const auto list = [&] {
    std::set<std::string> names;
    with_context("deleting snapshot " + std::string(id), [&] {
      store.list(
          root, [&](const ObjectInfo& object) { names.insert(object.name); }, stop);
    });
    return names;
  };
  std::set<std::string> listed = list();
  // Each was there, also where the answer to its removal was lost and the one to the next try says "not found".
  std::set<std::string> told = listed;
  // Without its manifest it is no snapshot any more, whatever happens from here on.
  removal.run(store, {manifest}, told.contains(manifest), stop);
  removal.throw_if_failed(id);
  listed.erase(manifest);
  // It is gone when a listing tells nothing more, or only what is no longer there: a listing may lag behind, and what
  // was not found may still be there on another of the store's servers.
  for (unsigned round = 1;; ++round) {
    if (round > 1) listed = list();
    told.insert(listed.begin(), listed.end());
    listed.erase(claim);
    const std::vector<std::string> found = removal.run(store, {listed.begin(), listed.end()}, true, stop);
    if (round == 1) removal.run(store, unlisted_segments(listed, root), false, stop);
    removal.throw_if_failed(id);
    if (round > 1 && found.empty()) break;
    if (round > kDeleteRounds) {
      throw Error(Code::unavailable,
                  "deleting snapshot " + std::string(id) +
                      ": the store says each time that it has removed them, and still has " + Removal::shown(found),
                  "see whether something else writes there, or the store keeps objects (a lock, a retention time); "
                  "then delete it again");
    }
  }
  removal.run(store, {claim}, told.contains(claim), stop);
  removal.throw_if_failed(id);
  told.insert(removal.removed.begin(), removal.removed.end());
  return told.size();
}

// Makes the snapshot the deletion's own, as far as the store lets it: one that is full takes no new claim, but gives
// the old one up. True when there is a claim now that was not there before.
bool take_over(ObjectStore& store, const Deletion& deletion, const std::stop_token& stop) {
  Claim claim = deletion.found && !deletion.found->token.empty() ? *deletion.found : new_claim(deletion.host);
  claim.token = deletion.token.empty() ? new_claim({}).token : deletion.token;
  claim.deleting_host = deletion.host;
  try {
    store.put(in_snapshot(deletion.id, kClaimName), Buffer::from(write_claim(claim)), stop);
    return !deletion.found;
  } catch (const StoreError& e) {
    if (e.code() == Code::cancelled) throw;
    Removal removal;
    removal.run(store, {in_snapshot(deletion.id, kManifestName)}, true, stop);
    removal.throw_if_failed(deletion.id);
    removal.run(store, {in_snapshot(deletion.id, kClaimName)}, true, stop);
    removal.throw_if_failed(deletion.id);
    return false;
  }
}

}  // namespace

Deletion plan_deletion(ObjectStore& store, std::string_view id, std::string host, std::stop_token stop) {
  if (!valid_id(id))
    throw Error(Code::invalid_argument, "deleting snapshot " + printable(id) + ": it is no snapshot's id");
  return with_context("deleting snapshot " + std::string(id), [&]() -> Deletion {
    return {std::string(id), new_claim({}).token, host, read_claim(store, id, stop)};
  });
}

std::uint64_t delete_snapshot(ObjectStore& store, const Deletion& deletion, std::stop_token stop) {
  bool any = deletion.found.has_value();
  bool added = false;
  with_context("deleting snapshot " + deletion.id, [&] {
    any = any || has_manifest(store, deletion.id, stop);
    if (!any)
      store.list(
          in_snapshot(deletion.id, ""), [&](const ObjectInfo&) { any = true; }, stop);
    if (any) added = take_over(store, deletion, stop);
  });
  const std::uint64_t objects = remove_all(store, deletion.id, stop);
  return added && objects > 0 ? objects - 1 : objects;
}

std::uint64_t delete_snapshot(ObjectStore& store, std::string_view id, std::stop_token stop) {
  return delete_snapshot(store, plan_deletion(store, id, "a host", stop), stop);
}

Undone finish_deletion(ObjectStore& store, const Deletion& deletion, std::stop_token stop) {
  const auto claim = read_claim(store, deletion.id, stop);
  const bool ours = claim && !claim->token.empty() && claim->token == deletion.token;
  const bool as_found = claim && deletion.found && claim->token == deletion.found->token;
  if (claim && !ours && !as_found) return {0, claim};
  // What was found had a claim, and this has none: it is another.
  if (!claim && deletion.found && has_manifest(store, deletion.id, stop)) return {0, Claim{}};
  return {delete_snapshot(store, deletion, stop), std::nullopt};
}

Undone undo_snapshot(ObjectStore& store, const ObjectsStep& step, std::stop_token stop) {
  const std::string& id = step.snapshot_id;
  if (!valid_id(id))
    throw Error(Code::invalid_argument, "undoing snapshot " + printable(id) + ": it is no snapshot's id");
  const auto claim = read_claim(store, id, stop);
  if (!step.token.empty() && !step.claimed) return {withdraw_claim(store, id, step.token, stop), std::nullopt};
  if (claim) {
    if (step.token.empty() || claim->token != step.token) return {0, claim};
    return {remove_all(store, id, stop), std::nullopt};
  }
  // Somebody has deleted it, or it is of before claims; what was under way then may have arrived since. With a claim
  // again it is removed while nobody else begins.
  if (has_manifest(store, id, stop)) {
    const Buffer manifest = store.get(in_snapshot(id, kManifestName), kMaxManifestBytes, stop);
    if (step.manifest_sha256 != sha256_hex(manifest)) return {0, Claim{}};
  }
  Claim own = new_claim("a job that is undone");
  if (!step.token.empty()) own.token = step.token;
  if (!store.put_new(in_snapshot(id, kClaimName), Buffer::from(write_claim(own)), stop).ours) {
    const auto another = read_claim(store, id, stop);
    if (another) return {0, another};
    throw hidden_claim(id);
  }
  const std::uint64_t objects = remove_all(store, id, stop);
  return {objects > 0 ? objects - 1 : 0, std::nullopt};
}

VerifyResult verify_snapshot(ObjectStore& store, std::string_view href, const SnapshotSettings& settings,
                             Throttle& throttle, JobContext& job) {
  SnapshotReader reader(store, href, settings, throttle, job);
  std::vector<std::byte> discarded(kChunkBytes);
  while (reader.read(discarded) > 0) {
  }
  const Manifest& manifest = reader.manifest();
  return {manifest.segments, manifest.raw_bytes, manifest.stored_bytes, manifest.encryption_key};
}

}  // namespace guestagent

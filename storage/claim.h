// Who makes a snapshot: the first object below its id is a claim, made only where there is none, with a random token
// that nobody else has. While a claim stands, its holder alone writes and removes below that id; whoever deletes by
// request takes the claim over first.
//
//   claim.json     {"token", "host", "since", "deleting_host"?}; it stays with the finished snapshot, and goes last
//   when that is removed claim-<token>  the same, while the first segments are not stored yet, where the store is not
//   sure about "only where there is none"
//
// Where it is not (ObjectStore::promises_new()), two at the same instant may both be told that the claim is theirs. So
// each then makes a second object of a name of its own, and gives up when it sees anything of somebody else's: of two,
// the later to store its own sees the other's. On a store that shows in its listings what it has confirmed that leaves
// at most one; on others, that no object is ever replaced (put_new for all) and that the claim is read again before and
// after the manifest leave at most one success.
//
// What is read here may be anybody's bytes: a claim that cannot be read is somebody else's.
#pragma once

#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "storage/object_store.h"

namespace guestagent {

inline constexpr std::string_view kClaimName = "claim.json";

struct Claim {
  std::string token;          // empty: unreadable, nobody's here
  std::string host;           // of the maker, as its replicas reach it
  std::string since;          // UTC, as format_utc()
  std::string deleting_host;  // set by who deletes the snapshot
};

// With a fresh token, from now on.
Claim new_claim(std::string host);
std::string write_claim(const Claim& claim);
// Never throws for what is in `text`.
Claim read_claim_text(std::string_view text);

// "192.0.2.1 since 2026-01-31T23:59:59Z", for messages.
std::string holder_of(const Claim& claim);

// The claim of the snapshot `id`; nullopt when there is none.
std::optional<Claim> read_claim(ObjectStore& store, std::string_view id, std::stop_token stop);

// The error of a store that has a claim and says that there is none: whose it is cannot be known now.
Error hidden_claim(std::string_view id);

// Throws already_exists, saying who has it since when and what can be done, when anything of the snapshot `id` is on
// the store.
void check_id_is_free(ObjectStore& store, std::string_view id, std::stop_token stop);

// Makes `claim` the one of `id`, and reads it back. already_exists as above when it is somebody else's; then nothing of
// this claim is left.
void make_claim(ObjectStore& store, std::string_view id, const Claim& claim, Clock& clock, std::stop_token stop);

// Segments are stored: the second object has done its work. Failing to remove it is no error; it goes with the
// snapshot.
void drop_second_claim(ObjectStore& store, std::string_view id, const Claim& claim, std::stop_token stop);

// Throws failed_precondition unless the claim is (still) the one with that token: somebody has deleted the snapshot, or
// taken its id.
void check_claim(ObjectStore& store, std::string_view id, const std::string& token, Clock& clock, std::stop_token stop);

// Removes what make_claim() may have left of `token` when it did not come to its end; answers how many objects.
// unavailable where a claim is there that cannot be read.
unsigned withdraw_claim(ObjectStore& store, std::string_view id, const std::string& token, std::stop_token stop);

}  // namespace guestagent

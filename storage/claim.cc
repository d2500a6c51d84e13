#include "storage/claim.h"

#include "base/json.h"
#include "base/log.h"
#include "base/secret.h"
#include "base/text.h"
#include "storage/snapshot_format.h"

namespace guestagent {
namespace {

constexpr std::uint64_t kMaxClaim = 64 << 10;
constexpr std::size_t kTokenBytes = 16;
constexpr std::size_t kShownHost = 255;
// What a store has confirmed may be missing for moments on one of its servers.
constexpr unsigned kLooks = 3;
constexpr Millis kBetweenLooks{150};

std::string below(std::string_view id, std::string_view leaf) {
  return std::string(id) + '/' + std::string(leaf);
}
std::string second_name(const std::string& token) {
  return "claim-" + token;
}
std::string manifest_of(std::string_view id) {
  return below(id, kManifestName);
}

std::string storing(std::string_view id) {
  return "storing snapshot " + std::string(id);
}

std::string delete_call(const ObjectStore& store, std::string_view id) {
  return "guestagent --oneshot delete_replication_snapshot '{\"snapshot_href\": \"" + store.href(manifest_of(id)) +
         "\"}'";
}

Error taken(const ObjectStore& store, std::string_view id, const std::optional<Claim>& by, bool complete) {
  const std::string who = by ? holder_of(*by) : "somebody whose agent makes no claims";
  const std::string what = "the store has that id already: ";
  if (complete) {
    return Error(Code::already_exists, what + "a complete snapshot of " + who,
                 "choose another snapshot_id, or delete that snapshot first: " + delete_call(store, id));
  }
  if (by && !by->deleting_host.empty()) {
    return Error(Code::already_exists, what + "it is of " + who + ", and " + by->deleting_host + " is deleting it",
                 "choose another snapshot_id, or wait; if that host is gone, finish it: " + delete_call(store, id));
  }
  return Error(
      Code::already_exists, what + "it is being made by " + who + ", or its maker has died",
      "choose another snapshot_id, or wait; an agent removes what its own dead job left when it is started again. If "
      "that host makes it no more (list_jobs there), this removes the remains, and a maker that still runs fails: " +
          delete_call(store, id));
}

// Looks again while nothing is there, as far as that may pass.
std::optional<Claim> find_claim(ObjectStore& store, std::string_view id, Clock& clock, const std::stop_token& stop) {
  for (unsigned look = 1;; ++look) {
    auto claim = read_claim(store, id, stop);
    if (claim || look == kLooks) return claim;
    if (!clock.sleep(kBetweenLooks, stop)) throw Error(Code::cancelled, storing(id) + ": cancelled on request");
  }
}

// Whose `other` is, an object beside `own` claim.
std::optional<Claim> holder_beside(ObjectStore& store, std::string_view id, const Claim& own, const std::string& other,
                                   const std::stop_token& stop) {
  const auto first = read_claim(store, id, stop);
  if (first && first->token != own.token) return first;
  if (!other.starts_with(below(id, second_name("")))) return std::nullopt;
  try {
    return read_claim_text(store.get(other, kMaxClaim, stop).text());
  } catch (const StoreError& e) {
    if (e.code() != Code::not_found) throw;
    return std::nullopt;  // gave up as well
  }
}

}  // namespace

Claim new_claim(std::string host) {
  return {random_hex(kTokenBytes), std::move(host), format_utc(system_clock().now()), {}};
}

std::string write_claim(const Claim& claim) {
  JsonWriter json;
  json.begin_object().member("token", claim.token).member("host", claim.host).member("since", claim.since);
  if (!claim.deleting_host.empty()) json.member("deleting_host", claim.deleting_host);
  return json.end_object().text();
}

Claim read_claim_text(std::string_view text) {
  try {
    const JsonDocument document = parse_json(text, "claim");
    const JsonReader in(document, "claim");
    Claim claim{in.string("token"), in.string("host"), in.string("since"), in.opt_string("deleting_host").value_or("")};
    claim.host = printable(claim.host, kShownHost);
    claim.since = format_utc(parse_utc(claim.since));
    claim.deleting_host = printable(claim.deleting_host, kShownHost);
    return claim;
  } catch (const Error&) {
    return {};
  }
}

std::string holder_of(const Claim& claim) {
  if (claim.token.empty()) return "somebody whose claim cannot be read";
  return claim.host + " since " + claim.since;
}

std::optional<Claim> read_claim(ObjectStore& store, std::string_view id, std::stop_token stop) {
  try {
    return read_claim_text(store.get(below(id, kClaimName), kMaxClaim, stop).text());
  } catch (const StoreError& e) {
    if (e.code() == Code::not_found) return std::nullopt;
    if (e.code() == Code::resource_exhausted) return Claim{};
    throw;
  }
}

void check_id_is_free(ObjectStore& store, std::string_view id, std::stop_token stop) {
  with_context(storing(id), [&] {
    auto claim = read_claim(store, id, stop);
    const bool complete = store.stat(manifest_of(id), stop).has_value();
    if (complete && !claim) claim = read_claim(store, id, stop);  // both may have come between the two looks
    bool any = claim || complete;
    if (!any)
      store.list(
          below(id, ""), [&](const ObjectInfo&) { any = true; }, stop);
    if (any) throw taken(store, id, claim, complete);
  });
}

void make_claim(ObjectStore& store, std::string_view id, const Claim& claim, Clock& clock, std::stop_token stop) {
  // Once more, so that whoever comes second here does not replace the claim of the first.
  if (!store.promises_new()) check_id_is_free(store, id, stop);
  with_context(storing(id), [&] {
    const Buffer body = Buffer::from(write_claim(claim));
    const auto lost = [&](const std::optional<Claim>& by) {
      withdraw_claim(store, id, claim.token, stop);
      return taken(store, id, by, store.stat(manifest_of(id), stop).has_value());
    };
    if (!store.put_new(below(id, kClaimName), body, stop).ours) throw lost(find_claim(store, id, clock, stop));
    if (!store.promises_new()) {
      const std::string own = below(id, second_name(claim.token));
      store.put_new(own, body, stop);
      std::string other;  // the first in order of names: a second claim, where there is one
      const auto look = [&](const ObjectInfo& object) {
        if (other.empty() && object.name != own && object.name != below(id, kClaimName)) other = object.name;
      };
      store.list(below(id, ""), look, stop);
      if (!other.empty()) throw lost(holder_beside(store, id, claim, other, stop));
    }
    const auto there = find_claim(store, id, clock, stop);
    if (!there) {
      throw Error(Code::unavailable, "its claim was stored, and is not there",
                  "try again; if it stays so, the store loses what it confirms");
    }
    if (there->token != claim.token) throw lost(there);
  });
}

Error hidden_claim(std::string_view id) {
  return Error(Code::unavailable, below(id, kClaimName) + ": the store has it, and says that it is not there",
               "try again when the store answers well");
}

void drop_second_claim(ObjectStore& store, std::string_view id, const Claim& claim, std::stop_token stop) {
  if (store.promises_new()) return;
  try {
    store.remove(below(id, second_name(claim.token)), stop);
  } catch (const StoreError& e) {
    if (e.code() == Code::cancelled) throw;
    log_info("a claim's second object stays with its snapshot", {{"why", e.what()}});
  }
}

void check_claim(ObjectStore& store, std::string_view id, const std::string& token, Clock& clock,
                 std::stop_token stop) {
  const auto there = with_context(storing(id), [&] { return find_claim(store, id, clock, stop); });
  if (there && there->token == token) return;
  std::string why = "it was deleted while it was made";
  if (there && there->deleting_host.empty()) why = "its id was taken meanwhile by " + holder_of(*there);
  if (there && !there->deleting_host.empty()) why += ", by " + there->deleting_host;
  throw Error(Code::failed_precondition, storing(id) + ": " + why, "take it again, with another snapshot_id");
}

unsigned withdraw_claim(ObjectStore& store, std::string_view id, const std::string& token, std::stop_token stop) {
  unsigned removed = store.remove(below(id, second_name(token)), stop) ? 1 : 0;
  const auto there = read_claim(store, id, stop);
  if (there && there->token.empty()) {
    throw Error(Code::unavailable,
                below(id, kClaimName) + ": the store has a claim that cannot be read: whose it is cannot be told",
                "try again when the store answers well");
  }
  if (there && there->token == token && store.remove(below(id, kClaimName), stop)) ++removed;
  if (there) return removed;
  store.list(
      below(id, kClaimName), [&](const ObjectInfo&) { throw hidden_claim(id); }, stop);
  return removed;
}

}  // namespace guestagent

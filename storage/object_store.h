// The contract of every store. One contract suite (tests/contract/storage) runs on every implementation.
//
// A store keeps named byte strings under one root (a directory; a container and prefix). Names are relative,
// of [A-Za-z0-9._/-], without a component "." or "..", an empty one or a leading slash, and not longer than
// the limits below; anything else is invalid_argument before a byte moves. All methods are thread-safe and
// throw StoreError.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "stream/buffer.h"

namespace guestagent {

// An Error that knows whether the same call may succeed later. Stores classify; only the retrying decorator
// retries.
class StoreError : public Error {
 public:
  StoreError(Code code, const std::string& message, std::string hint, bool retryable,
             std::optional<Seconds> retry_after = std::nullopt, std::string brief = {})
      : Error(code, message, std::move(hint)),
        retryable_(retryable),
        retry_after_(retry_after),
        brief_(std::move(brief)) {}
  bool retryable() const { return retryable_; }
  std::optional<Seconds> retry_after() const { return retry_after_; }
  // A word or two for the retry summary: "503", "stalled 30 s", "reset".
  const std::string& brief() const { return brief_; }
  // Whether it says that an object is larger than the caller wants.
  bool is_too_large() const { return code() == Code::resource_exhausted && brief_ == kTooLarge; }
  static constexpr const char* kTooLarge = "too large";

 private:
  bool retryable_;
  std::optional<Seconds> retry_after_;
  std::string brief_;
};

struct ObjectInfo {
  std::string name;
  std::uint64_t size = 0;
  WallTime modified;
  // For join(): the store's own digest of the object as put_new() told it; empty where it is not known.
  std::string etag = {};
};

// What put_new() did.
struct NewObject {
  bool ours = false;      // false: something else is there, and was not touched
  std::string etag = {};  // the store's own digest of the object, where it has one that join() can use
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  // Stores `body` under `name`, replacing what was there, whole or not at all; it is durable and was
  // confirmed by the store's own digest (where it has one) when this returns. The body is only read, so the
  // caller can send it again.
  virtual void put(std::string_view name, const Buffer& body, std::stop_token stop) = 0;

  // As put(), but only where nothing is: what is there is never replaced. When that is byte for byte `body`, it is
  // ours (an earlier try whose answer was lost). A store that does not know such a condition, or does not keep it
  // when two ask at the same instant, may say "ours" to both of them, and keeps one: see promises_new().
  virtual NewObject put_new(std::string_view name, const Buffer& body, std::stop_token stop) = 0;

  // True when put_new() is sure: of all that ever ask, on all hosts, one is told that it is its own. Where this is
  // false, who must be the only one makes sure by more (see storage/claim.h).
  virtual bool promises_new() const = 0;

  // The whole object. not_found; resource_exhausted when larger than `max_size`; data_loss or unavailable
  // when it came short.
  virtual Buffer get(std::string_view name, std::uint64_t max_size, std::stop_token stop) = 0;

  // As get(), without holding what came against the store's digest where that costs: for a caller who has a digest
  // of its own, and asks get() once more when that does not fit.
  virtual Buffer get_unverified(std::string_view name, std::uint64_t max_size, std::stop_token stop) {
    return get(name, max_size, std::move(stop));
  }

  // An object that was stored and confirmed once, and is what `right` says: it throws Error(data_loss) for bytes that
  // are not. A store that tries again asks some times more before it believes that the object is not there, too large
  // or wrong: that may be the answer of a server that does not see it at this moment, or of one in between. At least
  // one who came wrong is fetched again, by get().
  virtual Buffer get_promised(std::string_view name, std::uint64_t max_size,
                              const std::function<void(const Buffer&)>& right, std::stop_token stop);

  // What is known of an object, or nullopt when there is none.
  virtual std::optional<ObjectInfo> stat(std::string_view name, std::stop_token stop) = 0;

  // Every object whose name starts with `prefix`, in order of names. What was just written may be missing
  // (stores are eventually consistent): never decide on completeness by listing.
  virtual void list(std::string_view prefix, const std::function<void(const ObjectInfo&)>& each,
                    std::stop_token stop) = 0;

  // True if it was there; false, no error, when it was not.
  virtual bool remove(std::string_view name, std::stop_token stop) = 0;

  // Makes `name` readable as the objects `parts` joined in order, if the store can (Swift: static large
  // object, nested above the cluster's limit); false if it cannot. Deleting `name` leaves the parts.
  virtual bool join(std::string_view name, const std::vector<ObjectInfo>& parts, std::stop_token stop) = 0;

  // The address of an object for people and other tools; it holds no secret. Where the store's own address
  // comes with its login (Swift), this and name_of() may log in once.
  virtual std::string href(std::string_view name) const = 0;
  // The name of the object at that address, or nullopt when it is not under this store's root.
  virtual std::optional<std::string> name_of(std::string_view href) const = 0;
};

inline constexpr std::size_t kMaxObjectName = 512;
inline constexpr std::size_t kMaxObjectNameComponent = 200;

// Throws StoreError(invalid_argument) unless `name` is as the contract says.
void check_object_name(std::string_view name);
bool valid_object_name(std::string_view name);

}  // namespace guestagent

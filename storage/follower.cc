#include "storage/follower.h"

#include <algorithm>
#include <future>
#include <mutex>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "storage/claim.h"
#include "storage/snapshot_format.h"
#include "storage/spill.h"
#include "stream/digest.h"
#include "stream/ordered_tasks.h"

namespace guestagent {
namespace {

constexpr Millis kLookAgain{1000};
// A store may show late what is there: only so many looks in a row that find no claim say that there is none.
constexpr int kLooksForClaim = 5;

std::string followed(std::string_view snapshot_id) {
  return "follow-" + std::string(snapshot_id);
}

// Another store, but for segments that are here already.
class WithFetched : public ObjectStore {
 public:
  WithFetched(ObjectStore& inner, std::string prefix, Spill& spill)
      : inner_(inner), prefix_(std::move(prefix)), spill_(spill) {}

  void fetched(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    here_.insert(number);
  }

  Buffer get_promised(std::string_view name, std::uint64_t max_size, const std::function<void(const Buffer&)>& right,
                      std::stop_token stop) override {
    if (const auto number = take(name)) {
      try {
        Buffer body = spill_.load(*number);
        right(body);
        return body;
      } catch (const Error& e) {
        // What came early, or what the disk made of it, is not what was promised.
        if (e.code() != Code::data_loss) throw;
      }
    }
    return inner_.get_promised(name, max_size, right, std::move(stop));
  }

  void put(std::string_view name, const Buffer& body, std::stop_token stop) override { inner_.put(name, body, stop); }
  NewObject put_new(std::string_view name, const Buffer& body, std::stop_token stop) override {
    return inner_.put_new(name, body, stop);
  }
  bool promises_new() const override { return inner_.promises_new(); }
  Buffer get(std::string_view name, std::uint64_t max_size, std::stop_token stop) override {
    return inner_.get(name, max_size, stop);
  }
  Buffer get_unverified(std::string_view name, std::uint64_t max_size, std::stop_token stop) override {
    return inner_.get_unverified(name, max_size, stop);
  }
  std::optional<ObjectInfo> stat(std::string_view name, std::stop_token stop) override {
    return inner_.stat(name, stop);
  }
  void list(std::string_view prefix, const std::function<void(const ObjectInfo&)>& each,
            std::stop_token stop) override {
    inner_.list(prefix, each, stop);
  }
  bool remove(std::string_view name, std::stop_token stop) override { return inner_.remove(name, stop); }
  bool join(std::string_view name, const std::vector<ObjectInfo>& parts, std::stop_token stop) override {
    return inner_.join(name, parts, stop);
  }
  std::string href(std::string_view name) const override { return inner_.href(name); }
  std::optional<std::string> name_of(std::string_view href) const override { return inner_.name_of(href); }

 private:
  // The number of a segment that is here; once.
  std::optional<std::uint64_t> take(std::string_view name) {
    const std::lock_guard lock(mutex_);
    for (auto it = here_.begin(); it != here_.end(); ++it) {
      if (name != prefix_ + segment_name(*it)) continue;
      const std::uint64_t number = *it;
      here_.erase(it);
      return number;
    }
    return std::nullopt;
  }

  ObjectStore& inner_;
  const std::string prefix_;
  Spill& spill_;
  std::mutex mutex_;
  std::set<std::uint64_t> here_;
};

}  // namespace

fs::path follower_path(const SnapshotSettings& settings, std::string_view snapshot_id) {
  return spill_path(settings.spill, followed(snapshot_id));
}

struct Follower::State {
  State(ObjectStore& from, std::string snapshot_id, const SnapshotSettings& with, Throttle& limits, Millis silent,
        Clock& time, JobContext& of)
      : store(from),
        id(std::move(snapshot_id)),
        settings(with),
        throttle(limits),
        silence(silent),
        clock(time),
        job(of),
        spill(with.spill, followed(id)),
        with_fetched(from, id + '/', spill) {}

  std::string object(std::string_view leaf) const { return id + '/' + std::string(leaf); }
  bool fetch_more();
  bool one_more_is_there();
  std::optional<Buffer> fetch(std::uint64_t number);
  void require_maker();

  ObjectStore& store;
  const std::string id;
  const SnapshotSettings settings;
  Throttle& throttle;
  const Millis silence;
  Clock& clock;
  JobContext& job;
  Spill spill;
  WithFetched with_fetched;

  std::uint64_t next = 1;   // those before have come, or had no room
  std::uint64_t bytes = 0;  // that have come
  bool has_room = true;
  std::optional<std::string> token;  // of the claim that was seen
  int missed = 0;                    // looks that found no claim
};

std::optional<Buffer> Follower::State::fetch(std::uint64_t number) {
  try {
    return store.get(object(segment_name(number)), kMaxStoredBytes, job.stop_token());
  } catch (const Error& e) {
    if (e.code() == Code::not_found) return std::nullopt;
    throw;
  }
}

// Whether any came.
bool Follower::State::fetch_more() {
  if (!has_room) return one_more_is_there();
  WorkerPool transfers(settings.transfers);
  std::vector<std::future<std::optional<Buffer>>> coming;
  for (unsigned i = 0; i < settings.transfers; ++i)
    coming.push_back(transfers.run([this, number = next + i] { return fetch(number); }));
  const std::uint64_t first = next;
  std::uint64_t came = 0;
  for (unsigned i = 0; i < settings.transfers; ++i) {
    const std::optional<Buffer> body = coming[i].get();
    // One that came before its turn comes again: it is rare, and the order says what is here.
    if (!body || came < i) continue;
    throttle.download.take(body->size(), job.stop_token());
    has_room = has_room && spill.save(first + i, *body, sha256_hex(*body));
    if (has_room) with_fetched.fetched(first + i);
    bytes += body->size();
    ++came;
  }
  next += came;
  return came > 0;
}

// Without room the rest is fetched when the manifest is there; until then it is only looked whether the source lives.
bool Follower::State::one_more_is_there() {
  if (!store.stat(object(segment_name(next)), job.stop_token())) return false;
  ++next;
  return true;
}

// Throws when nobody makes the snapshot any more.
void Follower::State::require_maker() {
  const std::optional<Claim> claim = read_claim(store, id, job.stop_token());
  const auto gone = [&](const std::string& why) {
    throw Error(Code::not_found, "following snapshot " + id + ": " + why,
                "see what the source's job says, and take a new snapshot");
  };
  if (!claim) {
    if (token && ++missed >= kLooksForClaim) gone("its maker has given it up, or it was deleted");
    return;
  }
  missed = 0;
  if (!claim->deleting_host.empty()) gone("it is being deleted by " + claim->deleting_host);
  if (token && *token != claim->token) gone("the id is another's now: " + holder_of(*claim));
  token = claim->token;
}

Follower::Follower(ObjectStore& store, std::string snapshot_id, const SnapshotSettings& settings, Throttle& throttle,
                   Millis silence, Clock& clock, JobContext& job)
    : state_(std::make_unique<State>(store, std::move(snapshot_id), settings, throttle, silence, clock, job)) {}

Follower::~Follower() = default;

void Follower::wait() {
  State& s = *state_;
  SteadyTime sign = s.clock.steady();
  for (;;) {
    s.job.check_cancelled();
    if (s.store.stat(s.object(kManifestName), s.job.stop_token())) return;
    if (s.fetch_more()) {
      sign = s.clock.steady();
      s.job.progress(s.bytes, std::nullopt);
      continue;
    }
    s.require_maker();
    if (s.clock.steady() - sign > s.silence) {
      throw Error(Code::deadline_exceeded,
                  "following snapshot " + s.id + ": nothing has come of it for " +
                      std::to_string(s.silence.count() / 1000) + " s" + (s.token ? "" : ", and nobody has begun it"),
                  "see whether the source's job still runs; attach.follow_timeout is the limit");
    }
    s.clock.sleep(kLookAgain, s.job.stop_token());
  }
}

ObjectStore& Follower::store() {
  return state_->with_fetched;
}

}  // namespace guestagent

#include "storage/retrying_store.h"

#include <algorithm>
#include <random>
#include <vector>

#include "base/log.h"

namespace guestagent {
namespace {

// Carries what a list() callback threw past the retry loop.
struct CallersException {
  std::exception_ptr what;
};

// So often in all an object that must be there is asked for, when it is not, or not what it must be. The pauses between
// make some seconds.
constexpr unsigned kLooks = 4;

std::string brief_of(const StoreError& e) {
  return e.brief().empty() ? std::string(code_row(e.code()).wire) : e.brief();
}

class RetryingStore : public ObjectStore {
 public:
  RetryingStore(std::unique_ptr<ObjectStore> inner, RetrySettings policy, Clock& clock)
      : inner_(std::move(inner)), policy_(policy), clock_(clock) {}

  void put(std::string_view name, const Buffer& body, std::stop_token stop) override {
    run("put", name, stop, [&] { inner_->put(name, body, stop); });
  }

  NewObject put_new(std::string_view name, const Buffer& body, std::stop_token stop) override {
    return run("put", name, stop, [&] { return inner_->put_new(name, body, stop); });
  }

  bool promises_new() const override { return inner_->promises_new(); }

  Buffer get(std::string_view name, std::uint64_t max_size, std::stop_token stop) override {
    return run("get", name, stop, [&] { return inner_->get(name, max_size, stop); });
  }

  Buffer get_unverified(std::string_view name, std::uint64_t max_size, std::stop_token stop) override {
    return run("get", name, stop, [&] { return inner_->get_unverified(name, max_size, stop); });
  }

  Buffer get_promised(std::string_view name, std::uint64_t max_size, const std::function<void(const Buffer&)>& right,
                      std::stop_token stop) override {
    unsigned looks = 0;
    return run("get", name, stop, [&] {
      // Of a code that is for ever elsewhere.
      const auto again = [&](const Error& e, const std::string& brief) {
        return StoreError(e.code(), e.what(), e.hint(), ++looks < kLooks, std::nullopt, brief);
      };
      Buffer body;
      try {
        body = looks == 0 ? inner_->get_unverified(name, max_size, stop) : inner_->get(name, max_size, stop);
      } catch (const StoreError& e) {
        if (e.code() == Code::not_found || e.is_too_large() || e.code() == Code::data_loss) throw again(e, brief_of(e));
        throw;
      }
      try {
        right(body);
      } catch (const Error& e) {
        if (e.code() != Code::data_loss) throw;
        throw again(e, "wrong");
      }
      return body;
    });
  }

  std::optional<ObjectInfo> stat(std::string_view name, std::stop_token stop) override {
    return run("stat", name, stop, [&] { return inner_->stat(name, stop); });
  }

  void list(std::string_view prefix, const std::function<void(const ObjectInfo&)>& each,
            std::stop_token stop) override {
    std::optional<std::string> told;
    const auto once = [&](const ObjectInfo& info) {
      if (told && info.name <= *told) return;
      told = info.name;
      try {
        each(info);
      } catch (...) {
        throw CallersException{std::current_exception()};
      }
    };
    try {
      run("list", prefix, stop, [&] { inner_->list(prefix, once, stop); });
    } catch (const CallersException& e) {
      std::rethrow_exception(e.what);
    }
  }

  bool remove(std::string_view name, std::stop_token stop) override {
    bool tried = false;
    return run("remove", name, stop, [&] {
      const bool again = std::exchange(tried, true);
      return inner_->remove(name, stop) || again;
    });
  }

  bool join(std::string_view name, const std::vector<ObjectInfo>& parts, std::stop_token stop) override {
    return run("join", name, stop, [&] { return inner_->join(name, parts, stop); });
  }

  std::string href(std::string_view name) const override {
    return run("address of", name, {}, [&] { return inner_->href(name); });
  }

  std::optional<std::string> name_of(std::string_view href) const override {
    return run("look up an", "address", {}, [&] { return inner_->name_of(href); });
  }

 private:
  template <typename F>
  std::invoke_result_t<F> run(std::string_view verb, std::string_view name, std::stop_token stop, F&& once) const {
    const SteadyTime start = clock_.steady();
    const std::string what = std::string(verb) + (name.empty() ? "" : " ") + std::string(name);
    std::vector<std::string> failures;
    while (true) {
      if (stop.stop_requested()) throw StoreError(Code::cancelled, what + ": cancelled on request", {}, false);
      try {
        return once();
      } catch (const StoreError& e) {
        if (e.code() == Code::cancelled) throw;
        if (failures.empty() && (!e.retryable() || policy_.tries <= 1)) throw;
        failures.push_back(brief_of(e));
        if (!e.retryable() || failures.size() >= policy_.tries) throw summary(what, failures, start, e);
        const Millis delay = delay_after(failures.size(), e.retry_after());
        log_info("will try again", {{"what", what}, {"why", e.what()}, {"in_ms", std::to_string(delay.count())}});
        if (!clock_.sleep(delay, stop)) {
          throw StoreError(Code::cancelled, what + ": cancelled on request", {}, false);
        }
      }
    }
  }

  StoreError summary(const std::string& what, const std::vector<std::string>& failures, SteadyTime start,
                     const StoreError& last) const {
    const auto took = std::chrono::round<Seconds>(clock_.steady() - start);
    std::string text = what + ": " + std::to_string(failures.size()) +
                       (failures.size() == 1 ? " try in " : " tries in ") + std::to_string(took.count()) + " s: ";
    for (const auto& failure : failures) text += (&failure == failures.data() ? "" : ", ") + failure;
    // Which server, which step on the way, and what it said.
    std::string_view why = last.what();
    if (why.starts_with(what + ": ")) why.remove_prefix(what.size() + 2);
    text += "; the last: " + std::string(why);
    return StoreError(last.code(), text, last.hint(), false, std::nullopt, last.brief());
  }

  Millis delay_after(std::size_t failed, std::optional<Seconds> asked) const {
    Millis cap = std::min(policy_.first_delay, policy_.max_delay);
    for (std::size_t i = 1; i < failed && cap < policy_.max_delay; ++i) cap = std::min(cap * 2, policy_.max_delay);
    std::random_device random;
    const Millis jittered(std::uniform_int_distribution<Millis::rep>(0, std::max<Millis::rep>(cap.count(), 0))(random));
    if (!asked) return jittered;
    // Compared in seconds first: a hostile Retry-After must not overflow in milliseconds.
    const Millis most = policy_.max_delay * 4;
    const Millis least = *asked >= std::chrono::ceil<Seconds>(most) ? most : std::min<Millis>(*asked, most);
    return std::max(jittered, least);
  }

  std::unique_ptr<ObjectStore> inner_;
  RetrySettings policy_;
  Clock& clock_;
};

}  // namespace

std::unique_ptr<ObjectStore> make_retrying_store(std::unique_ptr<ObjectStore> inner, RetrySettings policy,
                                                 Clock& clock) {
  return std::make_unique<RetryingStore>(std::move(inner), policy, clock);
}

}  // namespace guestagent

// A store in memory, whose every call a test can delay, refuse or falsify.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "net/url.h"
#include "storage/object_store.h"

namespace guestagent::test {

// Hooks are set before threads use the store; they run on the calling thread without any lock.
class MemoryStore : public ObjectStore {
 public:
  // Called before each request with its verb ("put", "get", "stat", "list", "remove", "join") and name; may throw what
  // the store is to answer.
  std::function<void(const std::string& verb, const std::string& name)> before;
  // The same, after `before`, for hooks that wait and must end when the caller gives up.
  std::function<void(const std::string& verb, const std::string& name, std::stop_token stop)> wait;
  // Called when the request has done what it does; what throws here is an answer that got lost.
  std::function<void(const std::string& verb, const std::string& name)> after;
  // Changes what get() answers, not what is stored.
  std::function<void(const std::string& name, std::string& body)> on_get;
  bool can_join = false;
  std::string root = "memory://";  // what addresses begin with
  // False: large bodies are counted and dropped, for streams larger than memory.
  bool keeps_bodies = true;
  // How sure put_new() is. sure: as a local store. racy: as Swift, which looks first and stores then (a hook in
  // `between` sees the two apart), and says so. ignored: as an old Ceph, which does not know the condition and
  // replaces.
  enum class Condition { sure, racy, ignored };
  Condition condition = Condition::sure;
  std::function<void(const std::string& name)> between;

  void put(std::string_view name, const Buffer& body, std::stop_token stop) override {
    enter("put", name, stop);
    {
      const std::lock_guard lock(mutex_);
      objects_[std::string(name)] = {kept(body), body.size(), system_clock().now()};
    }
    leave("put", name);
  }

  NewObject put_new(std::string_view name, const Buffer& body, std::stop_token stop) override {
    enter("put", name, stop);
    const std::string text = kept(body);
    bool ours = true;
    const auto free_or_ours = [&] {
      const auto found = objects_.find(std::string(name));
      return found == objects_.end() || (found->second.size == body.size() && found->second.body == text);
    };
    if (condition == Condition::racy) {
      {
        const std::lock_guard lock(mutex_);
        ours = free_or_ours();
      }
      if (between) between(std::string(name));
    }
    {
      const std::lock_guard lock(mutex_);
      if (condition == Condition::sure) ours = free_or_ours();
      if (ours) objects_[std::string(name)] = {text, body.size(), system_clock().now()};
    }
    leave("put", name);
    return {ours, {}};
  }

  bool promises_new() const override { return condition == Condition::sure; }

  Buffer get(std::string_view name, std::uint64_t max_size, std::stop_token stop) override {
    enter("get", name, stop);
    std::string body;
    {
      const std::lock_guard lock(mutex_);
      const auto found = objects_.find(std::string(name));
      if (found == objects_.end())
        throw StoreError(Code::not_found, "get " + std::string(name) + ": not found", "", false);
      body = found->second.body;
    }
    if (on_get) on_get(std::string(name), body);
    if (body.size() > max_size)
      throw StoreError(Code::resource_exhausted, "get " + std::string(name) + ": too large", "", false, std::nullopt,
                       StoreError::kTooLarge);
    leave("get", name);
    return Buffer::from(body);
  }

  std::optional<ObjectInfo> stat(std::string_view name, std::stop_token stop) override {
    enter("stat", name, stop);
    std::optional<ObjectInfo> info;
    {
      const std::lock_guard lock(mutex_);
      const auto found = objects_.find(std::string(name));
      if (found != objects_.end()) info = ObjectInfo{found->first, found->second.size, found->second.modified};
    }
    leave("stat", name);
    return info;
  }

  void list(std::string_view prefix, const std::function<void(const ObjectInfo&)>& each,
            std::stop_token stop) override {
    enter("list", prefix, stop);
    std::vector<ObjectInfo> found;
    {
      const std::lock_guard lock(mutex_);
      for (auto at = objects_.lower_bound(std::string(prefix)); at != objects_.end() && at->first.starts_with(prefix);
           ++at) {
        if (!unlisted_.contains(at->first)) found.push_back({at->first, at->second.size, at->second.modified});
      }
    }
    for (const ObjectInfo& object : found) each(object);
    leave("list", prefix);
  }

  bool remove(std::string_view name, std::stop_token stop) override {
    enter("remove", name, stop);
    bool removed = false;
    {
      const std::lock_guard lock(mutex_);
      removed = objects_.erase(std::string(name)) > 0;
    }
    leave("remove", name);
    return removed;
  }

  bool join(std::string_view name, const std::vector<ObjectInfo>& parts, std::stop_token stop) override {
    enter("join", name, stop);
    if (!can_join) return false;
    {
      const std::lock_guard lock(mutex_);
      Object joined{{}, 0, system_clock().now()};
      for (const ObjectInfo& part : parts) {
        const auto found = objects_.find(part.name);
        if (found == objects_.end() || found->second.size != part.size) {
          throw StoreError(Code::data_loss,
                           "join " + std::string(name) + ": " + part.name + ": missing or of another size", "", false);
        }
        joined.body += found->second.body;
        joined.size += part.size;
      }
      objects_[std::string(name)] = std::move(joined);
    }
    leave("join", name);
    return true;
  }

  std::string href(std::string_view name) const override { return root + std::string(name); }
  std::optional<std::string> name_of(std::string_view href) const override {
    if (!href.starts_with(root)) return std::nullopt;
    std::string name = percent_decode(href.substr(root.size())).value_or("");
    name.erase(0, name.find_first_not_of('/'));
    if (!valid_object_name(name)) return std::nullopt;
    return name;
  }

  // What a test looks at and tampers with.
  std::map<std::string, std::string> objects() const {
    const std::lock_guard lock(mutex_);
    std::map<std::string, std::string> all;
    for (const auto& [name, object] : objects_) all[name] = object.body;
    return all;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, body] : objects()) all.push_back(name);
    return all;
  }
  bool has(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    return objects_.contains(name);
  }
  std::string text(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    return objects_.at(name).body;
  }
  void set(const std::string& name, std::string body) {
    const std::lock_guard lock(mutex_);
    const std::uint64_t size = body.size();
    objects_[name] = {std::move(body), size, system_clock().now()};
  }
  void set_modified(const std::string& name, WallTime modified) {
    const std::lock_guard lock(mutex_);
    objects_.at(name).modified = modified;
  }
  void erase(const std::string& name) {
    const std::lock_guard lock(mutex_);
    objects_.erase(name);
  }
  // Empty again, and without hooks.
  void reset() {
    before = nullptr;
    wait = nullptr;
    after = nullptr;
    on_get = nullptr;
    between = nullptr;
    const std::lock_guard lock(mutex_);
    objects_.clear();
    unlisted_.clear();
  }
  // As a listing that lags behind: the object is there, but list() does not tell.
  void hide_from_listing(const std::string& name) {
    const std::lock_guard lock(mutex_);
    unlisted_.insert(name);
  }
  // A store of its own with the same objects and no hooks, to try something on.
  std::unique_ptr<MemoryStore> copy() const {
    auto other = std::make_unique<MemoryStore>();
    const std::lock_guard lock(mutex_);
    other->objects_ = objects_;
    return other;
  }

 private:
  struct Object {
    std::string body;
    std::uint64_t size = 0;
    WallTime modified;
  };

  std::string kept(const Buffer& body) const {
    return keeps_bodies || body.size() <= 4096 ? body.text() : std::string();
  }

  void enter(const char* verb, std::string_view name, std::stop_token stop) {
    if (verb != std::string_view("list")) check_object_name(name);
    refuse_if_stopped(stop);
    if (before) before(verb, std::string(name));
    if (wait) wait(verb, std::string(name), stop);
    refuse_if_stopped(stop);
  }
  static void refuse_if_stopped(const std::stop_token& stop) {
    if (stop.stop_requested()) throw StoreError(Code::cancelled, "the request was broken off", "", false);
  }
  void leave(const char* verb, std::string_view name) {
    if (after) after(verb, std::string(name));
  }

  mutable std::mutex mutex_;
  std::map<std::string, Object> objects_;
  std::set<std::string> unlisted_;
};

}  // namespace guestagent::test

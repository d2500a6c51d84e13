// As much of Swift (and of both its logins) as the store speaks to, on a scripted peer: what a real one
// cannot be made to do, this one does on command. That it answers like the real one is what the contract
// suite on the real one is for.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "base/file.h"
#include "swift_under_test.h"

namespace guestagent {

class FakeSwift : public SwiftUnderTest {
 public:
  FakeSwift();

  ScriptedHttp& peer() override { return peer_; }
  StorageSettings settings() { return settings("v1"); }
  StorageSettings settings(const std::string& auth) override;

  std::optional<std::string> object(const std::string& name) override;
  void put_object(const std::string& name, const std::string& body) override;
  void remove_object(const std::string& name);
  std::size_t objects() override;

  // Every token given out so far is expired.
  void expire_tokens();
  void set_token_life(unsigned seconds) { token_life_ = seconds; }
  unsigned logins() const;
  void set_storage_url(std::string url) override;
  std::string key() const override;
  // From now on the logins want this one; the settings' file has what it had.
  void set_key(const std::string& key);
  fs::path key_file() const { return files_.path() / "key"; }
  void forget_container();
  void set_large_objects(bool on, unsigned most_segments);
  void set_page(std::size_t entries) { page_ = entries; }
  // As an old Ceph gateway: "If-None-Match: *" is not known, and everything is replaced.
  void ignore_conditions() { knows_conditions_ = false; }

 private:
  PeerAnswer answer(const PeerRequest& request);
  PeerAnswer login(const PeerRequest& request);
  PeerAnswer on_container(const PeerRequest& request);
  PeerAnswer on_object(const PeerRequest& request, const std::string& path);
  PeerAnswer put_large_object(const PeerRequest& request, const std::string& path);

  struct Object {
    std::string body;
    std::string etag;
    bool large = false;
  };

  TempDir files_;
  mutable std::mutex mutex_;
  std::map<std::string, Object> objects_;  // by "/v1/AUTH_test/c/…"
  std::set<std::string> tokens_;
  bool container_ = false, large_objects_ = true;
  unsigned logins_ = 0, most_segments_ = 1000;
  std::atomic<unsigned> token_life_{3600};
  std::atomic<std::size_t> page_{1000};
  std::atomic<bool> knows_conditions_{true};
  std::string storage_url_, key_;
  ScriptedHttp peer_;  // last: its threads use the rest
};

inline constexpr const char* kFakeKey = "the-key-of-the-fake";

}  // namespace guestagent

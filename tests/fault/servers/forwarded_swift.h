// A real Swift (and, with v3, a real Keystone) behind a peer that passes everything on, but for what a script spoils.
// The lab says where they are (tests/lab/swift.py run).
#pragma once

#include <mutex>

#include "base/file.h"
#include "fault/storage/swift_under_test.h"
#include "storage/http/store_http.h"
#include "storage/object_store.h"

namespace guestagent {

class ForwardedSwift : public SwiftUnderTest {
 public:
  // `prefix` is its own in the lab's container: what is below it is removed first.
  explicit ForwardedSwift(const std::string& prefix);

  ScriptedHttp& peer() override { return peer_; }
  StorageSettings settings(const std::string& auth) override;
  std::optional<std::string> object(const std::string& name) override;
  void put_object(const std::string& name, const std::string& body) override;
  std::size_t objects() override;
  void set_storage_url(std::string url) override;
  std::string key() const override;

  // Which login the lab's Swift has: "v1" or "v3".
  static std::string auth();

 private:
  StorageSettings own_settings() const;
  PeerAnswer pass_on(const PeerRequest& request);

  const std::string prefix_;
  TempDir files_;
  StoreHttp http_;
  std::unique_ptr<ObjectStore> direct_;
  std::mutex mutex_;
  std::string storage_url_;  // for set_storage_url()
  ScriptedHttp peer_;        // last: its threads use the rest
};

}  // namespace guestagent

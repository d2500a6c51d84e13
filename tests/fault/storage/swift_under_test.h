// A Swift whose answers a test can spoil, as the fault matrices see it: made up (fake_swift.h) or a real one behind a
// peer that passes everything on (../servers/forwarded_swift.h).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "config/settings.h"
#include "support/scripted_http.h"

namespace guestagent {

class SwiftUnderTest {
 public:
  virtual ~SwiftUnderTest() = default;

  virtual ScriptedHttp& peer() = 0;
  // A store's settings that fit: small timeouts, four tries, the login by `auth` (v1 or v3).
  virtual StorageSettings settings(const std::string& auth) = 0;

  // What is stored under the settings' root, whatever happens to the answers of peer().
  virtual std::optional<std::string> object(const std::string& name) = 0;
  virtual void put_object(const std::string& name, const std::string& body) = 0;
  virtual std::size_t objects() = 0;

  // What the logins say the storage URL is, "" for peer()'s.
  virtual void set_storage_url(std::string url) = 0;
  // In no error and no log.
  virtual std::string key() const = 0;
};

}  // namespace guestagent

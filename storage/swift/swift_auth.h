// How a session with a Swift begins: one file for each kind of login.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/secret.h"
#include "storage/http/store_http.h"
#include "storage/swift/settings.h"

namespace guestagent {

// A secret in a file that others may replace while the agent runs.
class RereadSecret {
 public:
  // Throws what reading the file throws.
  explicit RereadSecret(std::string file);
  // What the file has now; what it had before when it cannot be read (that is logged).
  const Secret& fresh();

 private:
  const std::string file_;
  Secret value_;
};

struct SwiftLogin {
  Secret token;
  std::string storage_url;
  // How long the token is good, by the server's clock alone; nullopt where it does not say.
  std::optional<Seconds> life;
};

class SwiftAuth {
 public:
  virtual ~SwiftAuth() = default;
  // Gets a token, with the secret that its file has now. Throws StoreError: permission_denied when the login is
  // refused, failed_precondition when its answer does not fit the settings, else as StoreHttp and http_errors.h. Not
  // thread-safe.
  virtual SwiftLogin login(StoreHttp& http, std::stop_token stop) = 0;
};

// The one that settings.auth names. `clock` outlives it. Throws Error(invalid_argument) for one nobody knows,
// and what reading the secret files throws.
std::unique_ptr<SwiftAuth> make_swift_auth(const SwiftSettings& settings, Clock& clock);

// Each of them. v1: GET auth_url with user and key. v3: Keystone, by password or application credential.
// token: from a file that is read again for each login, with a configured storage_url.
std::unique_ptr<SwiftAuth> make_swift_auth_v1(const SwiftSettings& settings, Clock& clock);
std::unique_ptr<SwiftAuth> make_swift_auth_v3(const SwiftSettings& settings, Clock& clock);
std::unique_ptr<SwiftAuth> make_swift_auth_token(const SwiftSettings& settings);

// The error for a login's answer that is no success: as status_error(), but it says nothing of objects, and quotes
// nothing.
StoreError login_error(const HttpRequest& request, const HttpResponse& response, Clock& clock);

// Where the objects are: `configured` (storage.swift.storage_url) unless it is empty, else `told`. Throws
// StoreError unless it is an http or https address; a login by https never leads to http.
std::string chosen_storage_url(const std::string& configured, const HttpRequest& request, std::string_view told);

}  // namespace guestagent

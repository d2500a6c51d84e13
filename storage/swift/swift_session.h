// Requests to one Swift account, with a token that is always fresh.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "storage/http/store_http.h"
#include "storage/swift/swift_auth.h"

namespace guestagent {

// Thread-safe. All threads share one token: it is renewed by one of them, before it expires (where the login
// says when) and when an answer is 401.
class SwiftSession {
 public:
  // Logs in when first needed. `clock` outlives it.
  SwiftSession(const SwiftSettings& settings, const HttpTimeouts& timeouts, Clock& clock);

  // Sends `request` to the storage URL followed by `path` ("/container/object", encoded), with the token. A
  // 401 is answered by a new token and the whole request again, body included: Swift also says 401 while it
  // cannot reach Keystone, so it is tried a few times, with growing pauses. A 401 that stays is
  // StoreError(permission_denied).
  HttpResponse send(HttpRequest& request, std::string_view path, std::stop_token stop);

  // Without credentials, to any address.
  HttpResponse send_plain(const HttpRequest& request, std::stop_token stop) { return http_.send(request, stop); }

  // Logs in if that was never done and the address is not configured.
  std::string storage_url(std::stop_token stop);

  Clock& clock() { return clock_; }

 private:
  struct Current {
    SwiftLogin login;
    std::optional<SteadyTime> renew_at, expires_at;
  };
  std::shared_ptr<const Current> current(std::stop_token stop);
  void reject(const std::shared_ptr<const Current>& refused);

  Clock& clock_;
  const std::string configured_url_;
  StoreHttp http_;
  std::mutex mutex_;
  std::unique_ptr<SwiftAuth> auth_;
  std::shared_ptr<const Current> current_;
  std::string known_url_;  // of the last login; empty: there was none
};

}  // namespace guestagent

#include "storage/swift/swift_auth.h"

#include "base/text.h"
#include "storage/http/http_errors.h"
#include "storage/url.h"

namespace guestagent {

std::unique_ptr<SwiftAuth> make_swift_auth(const SwiftSettings& settings, Clock& clock) {
  if (settings.auth == "v1") return make_swift_auth_v1(settings, clock);
  if (settings.auth == "v3") return make_swift_auth_v3(settings, clock);
  if (settings.auth == "token") return make_swift_auth_token(settings);
  throw Error(Code::invalid_argument, "storage.swift.auth: \"" + settings.auth + "\": no such login",
              "use v1, v3 or token");
}

std::string chosen_storage_url(const std::string& configured, const HttpRequest& request,
                               std::string_view told) {
  std::string url(configured.empty() ? told : configured);
  while (url.ends_with('/')) url.pop_back();
  const auto parsed = parse_url(url);
  if (!parsed) {
    throw answer_error(request, Code::failed_precondition,
                       "\"" + printable(url, 200) + "\" is no storage URL", "garbage", configured.empty());
  }
  const auto auth = parse_url(request.url);
  if (configured.empty() && auth && auth->scheme == "https" && parsed->scheme == "http") {
    throw StoreError(Code::permission_denied,
                     request.what + ": a login by https leads to " + parsed->origin() +
                         ", where the token would go in the clear",
                     "set storage.swift.storage_url", false, std::nullopt, "TLS");
  }
  return url;
}

}  // namespace guestagent

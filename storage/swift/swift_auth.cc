#include "storage/swift/swift_auth.h"

#include "base/log.h"
#include "base/text.h"
#include "net/url.h"
#include "storage/http/http_errors.h"

namespace guestagent {

std::unique_ptr<SwiftAuth> make_swift_auth(const SwiftSettings& settings, Clock& clock) {
  if (settings.auth == "v1") return make_swift_auth_v1(settings, clock);
  if (settings.auth == "v3") return make_swift_auth_v3(settings, clock);
  if (settings.auth == "token") return make_swift_auth_token(settings);
  throw Error(Code::invalid_argument, "storage.swift.auth: \"" + settings.auth + "\": no such login",
              "use v1, v3 or token");
}

RereadSecret::RereadSecret(std::string file) : file_(std::move(file)), value_(secret_from_file(file_)) {}

const Secret& RereadSecret::fresh() {
  try {
    value_ = secret_from_file(file_);
  } catch (const Error& e) {
    log_warning("a secret's file cannot be read again: the login is tried with what it had", {{"why", e.what()}});
  }
  return value_;
}

StoreError login_error(const HttpRequest& request, const HttpResponse& response, Clock& clock) {
  const StoreError plain = status_error(request, response, clock, false);
  std::string hint = plain.hint();
  if (response.status == 429 || response.status == 498)
    hint = "the login service limits how often one may log in: have fewer agents log in at the same time";
  if (response.status == 400 || response.status == 404 || response.status == 405)
    hint = "check storage.swift.auth_url and storage.swift.auth";
  return StoreError(plain.code(), plain.what(), hint, plain.retryable(), plain.retry_after(), plain.brief());
}

std::string chosen_storage_url(const std::string& configured, const HttpRequest& request, std::string_view told) {
  std::string url(configured.empty() ? told : configured);
  while (url.ends_with('/')) url.pop_back();
  const auto parsed = parse_url(url);
  if (!parsed) {
    throw answer_error(request, Code::failed_precondition, "\"" + printable(url, 200) + "\" is no storage URL",
                       "garbage", configured.empty());
  }
  const auto auth = parse_url(request.url);
  if (configured.empty() && auth && auth->scheme == "https" && parsed->scheme == "http") {
    throw StoreError(
        Code::permission_denied,
        request.what + ": a login by https leads to " + parsed->origin() + ", where the token would go in the clear",
        "set storage.swift.storage_url", false, std::nullopt, "TLS");
  }
  return url;
}

}  // namespace guestagent

#include "storage/swift/swift_session.h"

#include "base/log.h"
#include "storage/http/http_errors.h"

namespace guestagent {
namespace {

// Before each new token after a 401. The first comes at once: an expired token is what it usually is.
constexpr Millis kPauses[] = {Millis(0), Millis(1000), Millis(3000), Millis(8000)};

}  // namespace

SwiftSession::SwiftSession(const SwiftSettings& settings, const HttpTimeouts& timeouts, Clock& clock)
    : clock_(clock),
      configured_url_(settings.storage_url),
      http_(timeouts, settings.tls),
      auth_(make_swift_auth(settings, clock)) {}

std::shared_ptr<const SwiftSession::Current> SwiftSession::current(std::stop_token stop) {
  const std::lock_guard lock(mutex_);
  const SteadyTime now = clock_.steady();
  if (current_ && (!current_->renew_at || now < *current_->renew_at)) return current_;
  auto fresh = std::make_shared<Current>();
  try {
    fresh->login = auth_->login(http_, stop);
  } catch (const StoreError& e) {
    if (e.code() == Code::cancelled) throw;
    if (current_ && current_->expires_at && now < *current_->expires_at) {
      log_warning("the store's token could not be renewed yet; the old one is still good", {{"why", e.what()}});
      auto patient = std::make_shared<Current>(*current_);
      patient->renew_at = now + (*current_->expires_at - now) / 4;
      return current_ = patient;
    }
    // The same login was good before: that it is refused now is the identity service's trouble, or the key was replaced
    // and its file comes later, rather than a wrong key or address.
    const bool retryable = e.retryable() || !known_url_.empty();
    // Whoever asked for an object must not take a login's trouble for that of the object.
    const bool of_objects =
        e.code() == Code::not_found || e.code() == Code::resource_exhausted || e.code() == Code::data_loss;
    const Code code = !of_objects ? e.code() : e.retryable() ? Code::unavailable : Code::failed_precondition;
    const std::string hint = e.hint().empty() ? "is storage.swift.auth_url the address of a login?" : e.hint();
    throw StoreError(code, e.what(), hint, retryable, e.retry_after(), "login " + e.brief());
  }
  if (fresh->login.life) {
    fresh->expires_at = clock_.steady() + *fresh->login.life;
    fresh->renew_at = clock_.steady() + Millis(*fresh->login.life) * 3 / 4;
  }
  known_url_ = fresh->login.storage_url;
  return current_ = fresh;
}

void SwiftSession::reject(const std::shared_ptr<const Current>& refused) {
  const std::lock_guard lock(mutex_);
  // Another thread may have a newer one already.
  if (current_ == refused) current_.reset();
}

HttpResponse SwiftSession::send(HttpRequest& request, std::string_view path, std::stop_token stop) {
  for (const Millis& pause : kPauses) {
    const auto with = current(stop);
    request.url = with->login.storage_url + std::string(path);
    std::erase_if(request.headers, [](const auto& header) { return header.first == "X-Auth-Token"; });
    request.headers.emplace_back("X-Auth-Token", with->login.token.reveal());
    HttpResponse response = http_.send(request, stop);
    if (response.status != 401) return response;
    reject(with);
    if (&pause == std::end(kPauses) - 1) throw status_error(request, response, clock_);
    if (!clock_.sleep(pause, stop))
      throw StoreError(Code::cancelled, request.what + ": cancelled on request", {}, false);
  }
  throw Error(Code::internal, request.what + ": no answer");
}

std::string SwiftSession::storage_url(std::stop_token stop) {
  if (!configured_url_.empty()) {
    return chosen_storage_url(configured_url_, {.what = "storage.swift.storage_url", .method = {}}, {});
  }
  {
    const std::lock_guard lock(mutex_);
    if (!known_url_.empty()) return known_url_;
  }
  return current(stop)->login.storage_url;
}

}  // namespace guestagent

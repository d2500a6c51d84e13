#include "storage/http/store_http.h"

#include "base/log.h"

namespace guestagent {
namespace {

static_assert(std::string_view(HttpError::kTooLarge) == StoreError::kTooLarge);

HttpClientOptions options_of(const HttpTimeouts& timeouts, const TlsClientSettings& tls) {
  HttpClientOptions out;
  out.connect_timeout = timeouts.connect;
  out.stall = timeouts.stall;
  out.ca_file = tls.ca_file;
  out.insecure = tls.insecure;
  out.hints.ca = "set tls.ca_file to the CA that signed it";
  out.hints.ca_file = "tls.ca_file must be a readable file of PEM certificates";
  out.hints.certificate = "certificates of clients are not supported for stores: use an address that wants none";
  return out;
}

}  // namespace

StoreHttp::StoreHttp(const HttpTimeouts& timeouts, const TlsClientSettings& tls) : http_(options_of(timeouts, tls)) {
  if (tls.insecure)
    log_warning(
        "certificates of the store are not verified (tls.insecure): anybody on the way can read and change "
        "what is sent");
}

HttpResponse StoreHttp::send(const HttpRequest& request, std::stop_token stop) {
  try {
    return http_.send(request, std::move(stop));
  } catch (const HttpError& e) {
    throw StoreError(e.code(), e.what(), e.hint(), e.retryable(), std::nullopt, e.brief());
  }
}

}  // namespace guestagent

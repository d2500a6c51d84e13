// The HTTP client as stores have it: with the settings of the configuration, and errors that say what may be tried
// again.
#pragma once

#include <stop_token>

#include "config/settings.h"
#include "net/http_client.h"
#include "storage/object_store.h"

namespace guestagent {

// Thread-safe.
class StoreHttp {
 public:
  // Connects to nothing.
  StoreHttp(const HttpTimeouts& timeouts, const TlsClientSettings& tls);
  // As HttpClient::send(), but throws StoreError.
  HttpResponse send(const HttpRequest& request, std::stop_token stop);

 private:
  HttpClient http_;
};

}  // namespace guestagent

// What a curl result that is no success means to a caller.
#pragma once

#include <curl/curl.h>

#include <string>

#include "base/clock.h"
#include "net/http_error.h"

namespace guestagent {

struct CurlFailure {
  Code code = Code::unavailable;
  std::string why = {};
  std::string brief = {};  // for HttpError
  bool retryable = true;
  std::string hint = {};
};

// `err` is the socket's errno where curl has one, `connected` whether it came that far, `detail` curl's own
// words.
CurlFailure describe_failure(CURLcode code, int err, bool connected, const std::string& detail, Millis connect_timeout,
                             const HttpHints& hints);

// "30 s", "400 ms"
std::string millis_text(Millis time);

}  // namespace guestagent

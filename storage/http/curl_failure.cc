#include "storage/http/curl_failure.h"

#include <cerrno>

namespace guestagent {

std::string millis_text(Millis time) {
  if (time.count() % 1000 == 0) return std::to_string(time.count() / 1000) + " s";
  return std::to_string(time.count()) + " ms";
}

CurlFailure describe_failure(CURLcode code, int err, bool connected, const std::string& detail,
                             Millis connect_timeout) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
      return {.why = "no such host: " + detail, .brief = "no such host"};
    case CURLE_COULDNT_CONNECT:
      if (err == 0 || err == ECONNREFUSED) return {.why = "connection refused", .brief = "refused"};
      return {.why = detail,
              .brief = err == EHOSTUNREACH || err == ENETUNREACH ? "unreachable" : "no connection"};
    case CURLE_OPERATION_TIMEDOUT:
      if (connected) return {.why = detail, .brief = "timeout"};
      return {.why = "no connection within " + millis_text(connect_timeout), .brief = "connect timeout"};
    case CURLE_PARTIAL_FILE:
      return {.why = "the answer ended too early", .brief = "short body"};
    case CURLE_GOT_NOTHING:
      return {.why = "closed the connection without an answer", .brief = "reset"};
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_ABORTED_BY_CALLBACK:  // Transfer::sent
      return {.why = "connection broke: " + detail, .brief = "reset"};
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
      return {Code::permission_denied, "its certificate is not to be trusted: " + detail, "TLS", false,
              "set tls.ca_file to the CA that signed it"};
    case CURLE_SSL_CACERT_BADFILE:
      return {Code::failed_precondition, detail, "TLS", false,
              "tls.ca_file must be a readable file of PEM certificates"};
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CIPHER:
      return {.why = "TLS failed: " + detail, .brief = "TLS"};
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_CONTENT_ENCODING:
      return {.why = "this is no HTTP: " + detail, .brief = "garbage"};
    case CURLE_OUT_OF_MEMORY:
      return {Code::resource_exhausted, "out of memory", "out of memory", false, {}};
    default:
      return {.why = detail, .brief = "curl " + std::to_string(code)};
  }
}

}  // namespace guestagent

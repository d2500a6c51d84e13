#include "net/curl_failure.h"

#include <algorithm>
#include <cerrno>
#include <initializer_list>
#include <string_view>

namespace guestagent {

std::string millis_text(Millis time) {
  if (time.count() % 1000 == 0) return std::to_string(time.count() / 1000) + " s";
  return std::to_string(time.count()) + " ms";
}

namespace {

bool says(const std::string& detail, std::initializer_list<std::string_view> words) {
  return std::ranges::any_of(words, [&](std::string_view word) { return detail.find(word) != std::string::npos; });
}

// What helps against a certificate that is not accepted, by the words of the TLS library.
std::string certificate_hint(const std::string& detail, const HttpHints& hints) {
  if (says(detail, {"has expired"}))
    return "the certificate is too old: renew it on the server (if it is not, this host's clock is wrong)";
  if (says(detail, {"not yet valid"})) return "check this host's clock, and when the certificate begins";
  if (says(detail, {"subject name", "host name", "hostname", "IP address mismatch"}))
    return "the certificate is for another name: write the name that it has in the configured address, or give the "
           "server a certificate for this one";
  if (says(detail, {"revoked"})) return "the certificate was revoked: renew it on the server";
  if (says(detail, {"too weak", "too small"})) return "the server needs a certificate with a stronger key";
  return hints.ca;
}

// The other side's alert about our certificate, or that there is none.
bool refuses_ours(const std::string& detail) {
  return says(detail, {"alert"}) &&
         says(detail, {"certificate required", "bad certificate", "unknown ca", "certificate revoked",
                       "certificate expired", "certificate unknown", "unsupported certificate"});
}

}  // namespace

CurlFailure describe_failure(CURLcode code, int err, bool connected, const std::string& detail, Millis connect_timeout,
                             const HttpHints& hints) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
      return {.why = "no such host: " + detail, .brief = "no such host"};
    case CURLE_COULDNT_CONNECT:
      if (err == 0 || err == ECONNREFUSED) return {.why = "connection refused", .brief = "refused"};
      return {.why = detail, .brief = err == EHOSTUNREACH || err == ENETUNREACH ? "unreachable" : "no connection"};
    case CURLE_OPERATION_TIMEDOUT:
      if (connected) return {.why = detail, .brief = "timeout"};
      return {.why = "no connection within " + millis_text(connect_timeout), .brief = "connect timeout"};
    case CURLE_PARTIAL_FILE:
      return {.why = "the answer ended too early", .brief = "short body"};
    case CURLE_GOT_NOTHING:
      return {.why = "closed the connection without an answer", .brief = "reset"};
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_ABORTED_BY_CALLBACK:  // Transfer::may_send
      if (refuses_ours(detail))      // in TLS 1.3 it says so only after the handshake
        return {Code::permission_denied, "it wants a certificate of ours: " + detail, "TLS", false, hints.certificate};
      return {.why = "connection broke: " + detail, .brief = "reset"};
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
      return {Code::permission_denied, "its certificate is not to be trusted: " + detail, "TLS", false,
              certificate_hint(detail, hints)};
    case CURLE_SSL_CACERT_BADFILE:
      return {Code::failed_precondition, detail, "TLS", false, hints.ca_file};
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CIPHER:
      // OpenSSL's words for bytes that are none of TLS.
      if (says(detail, {"wrong version number", "packet length too long", "unknown protocol", "http request"}))
        return {Code::failed_precondition, "it does not speak TLS there: " + detail, "TLS", false,
                "write http:// where it speaks without TLS, or the port where it speaks TLS"};
      if (refuses_ours(detail))
        return {Code::permission_denied, "it wants a certificate of ours: " + detail, "TLS", false, hints.certificate};
      return {.why = "TLS failed: " + detail,
              .brief = "TLS",
              .hint = "check that the address and its port speak TLS 1.2 or later"};
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_CONTENT_ENCODING:
      return {.why = "this is no HTTP: " + detail,
              .brief = "garbage",
              .hint = "check the configured address and its port: a port for TLS wants https://"};
    case CURLE_OUT_OF_MEMORY:
      return {Code::resource_exhausted, "out of memory", "out of memory", false, {}};
    default:
      return {.why = detail, .brief = "curl " + std::to_string(code)};
  }
}

}  // namespace guestagent

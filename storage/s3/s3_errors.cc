#include "storage/s3/s3_errors.h"

#include <algorithm>

#include "base/text.h"
#include "storage/http/http_errors.h"
#include "storage/s3/xml.h"

namespace guestagent {
namespace {

struct S3CodeRow {
  const char* s3_code;
  Code code;
  bool retryable;
  const char* hint;
};

constexpr const char* kSpoiled = "what arrived is not what was sent: suspect the network or the store's memory";
constexpr const char* kQuota = "the store's limit of sizes or quota is reached";
constexpr const char* kToken =
    "keys with a session token are good for a while: whoever writes storage.s3.session_token_file (and the "
    "files of the keys) must write new ones in time";
constexpr const char* kBucketName = "choose another storage.container: S3 takes 3 to 63 of a-z, 0-9, \"-\" and \".\"";
constexpr S3CodeRow kS3Rows[] = {
    {"BadDigest", Code::data_loss, true, kSpoiled},
    {"XAmzContentSHA256Mismatch", Code::data_loss, true, kSpoiled},
    {"IncompleteBody", Code::data_loss, true, kSpoiled},
    {"RequestTimeout", Code::unavailable, true, ""},
    {"SlowDown", Code::unavailable, true, "the store limits the rate of requests: lower snapshot.transfers"},
    {"OperationAborted", Code::unavailable, true, ""},
    {"RequestTimeTooSkewed", Code::permission_denied, false,
     "this host's clock is wrong: set it, S3 refuses signatures of another time"},
    {"RequestExpired", Code::permission_denied, false,
     "this host's clock is wrong: set it, S3 refuses signatures of another time"},
    {"SignatureDoesNotMatch", Code::permission_denied, false,
     "check that storage.s3.secret_key_file has the secret of storage.s3.access_key; a proxy that changes "
     "requests spoils signatures, too"},
    {"InvalidAccessKeyId", Code::permission_denied, false, "the store does not know storage.s3.access_key"},
    {"ExpiredToken", Code::permission_denied, true, kToken},
    {"TokenRefreshRequired", Code::permission_denied, true, kToken},
    {"InvalidToken", Code::permission_denied, false,
     "the keys need the session token that was made with them: set storage.s3.session_token_file"},
    {"BucketAlreadyExists", Code::failed_precondition, false,
     "that bucket belongs to somebody else: choose another storage.container"},
    {"InvalidBucketName", Code::failed_precondition, false, kBucketName},
    {"TooManyBuckets", Code::resource_exhausted, false,
     "remove a bucket, or name one that exists in storage.container"},
    {"QuotaExceeded", Code::resource_exhausted, false, kQuota},
    {"XMinioAdminBucketQuotaExceeded", Code::resource_exhausted, false, kQuota},
    {"XMinioStorageFull", Code::resource_exhausted, true, "free space on the store"},
    {"EntityTooLarge", Code::resource_exhausted, false, kQuota},
};

// For those whose body comes with an HTTP status of 3xx or 4xx that says the address is another one.
constexpr std::string_view kOtherRegion[] = {"PermanentRedirect",
                                             "TemporaryRedirect",
                                             "Redirect",
                                             "AuthorizationHeaderMalformed",
                                             "IllegalLocationConstraintException",
                                             "InvalidLocationConstraint",
                                             "InvalidRegionName"};

// S3's own words name no secret; a server that repeats one is not quoted.
bool quotable(const std::string& text, const HttpRequest& request) {
  return std::ranges::none_of(request.headers, [&](const auto& header) {
    const bool secret = header.first == "Authorization" || header.first == "x-amz-security-token";
    return secret && text.find(header.second) != std::string::npos;
  });
}

}  // namespace

S3Refusal read_s3_refusal(const HttpResponse& response) {
  S3Refusal out;
  if (const auto xml = parse_xml(response.body.text()); xml && xml->name == "Error") {
    out.code = printable(xml->child_text("Code"), 80);
    out.message = printable(xml->child_text("Message"), 200);
    out.region = printable(xml->child_text("Region"), 60);
    out.endpoint = printable(xml->child_text("Endpoint"), 200);
  }
  if (const auto region = response.header("x-amz-bucket-region"); region && out.region.empty())
    out.region = printable(*region, 60);
  return out;
}

StoreError s3_error(const HttpRequest& request, const HttpResponse& response, const std::string& bucket,
                    const std::string& region, Clock& clock) {
  const StoreError plain = status_error(request, response, clock);
  const S3Refusal refusal = read_s3_refusal(response);
  std::string text = plain.what();
  if (!refusal.code.empty()) text += ": " + refusal.code;
  if (!refusal.message.empty() && quotable(refusal.message, request)) text += ": " + refusal.message;
  const auto as = [&](Code code, bool retryable, const std::string& hint) {
    return StoreError(code, text, hint, retryable, retryable ? plain.retry_after() : std::nullopt,
                      refusal.code.empty() ? plain.brief() : refusal.code);
  };

  const bool redirected = response.status >= 300 && response.status < 400;
  const bool elsewhere = redirected || std::ranges::find(kOtherRegion, refusal.code) != std::end(kOtherRegion);
  if (!refusal.region.empty() && refusal.region != region && (elsewhere || response.status == 400)) {
    text += ": the bucket " + bucket + " is in " + refusal.region + ", not in " + region;
    std::string hint = "set storage.s3.region to " + refusal.region;
    if (redirected) hint += ", and storage.s3.endpoint to the address of that region";
    return as(Code::failed_precondition, false, hint);
  }
  if (elsewhere && !refusal.endpoint.empty()) {
    text += ": the bucket " + bucket + " is at " + refusal.endpoint;
    return as(Code::failed_precondition, false,
              "set storage.s3.endpoint and storage.s3.region to those of the bucket " + bucket);
  }
  if (elsewhere && !refusal.code.empty()) {
    return as(Code::failed_precondition, false,
              "set storage.s3.endpoint and storage.s3.region to those of the bucket " + bucket);
  }
  for (const S3CodeRow& row : kS3Rows) {
    if (refusal.code == row.s3_code) return as(row.code, row.retryable, row.hint);
  }
  std::string hint = plain.hint();
  if (response.status == 400 && hint.empty())
    hint = "check storage.s3.endpoint, storage.s3.region and that " + bucket + " can be a bucket's name";
  return as(plain.code(), plain.retryable(), hint);
}

}  // namespace guestagent

// AWS Signature Version 4 for S3.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/secret.h"
#include "storage/http/store_http.h"

namespace guestagent {

struct S3Credentials {
  std::string access_key;
  Secret secret_key;
  std::string region;
  Secret session_token = {};  // of keys that are good for a while; empty: none
  bool operator==(const S3Credentials&) const = default;
};

// What is signed; the query is not encoded, the path is.
struct S3Request {
  std::string method = {};
  std::string host = {};  // as the Host header will have it
  std::string path = {};  // "/bucket/key", encoded
  std::vector<std::pair<std::string, std::string>> query = {};
  std::string payload_sha256 = {};  // hex, or "UNSIGNED-PAYLOAD"
};

// The query as it goes into the address: sorted and encoded, "" for none.
std::string canonical_query(const S3Request& request);

// The headers that sign it: x-amz-date, x-amz-content-sha256, Authorization and, with a session token,
// x-amz-security-token.
HttpHeaders sign_s3(const S3Request& request, const S3Credentials& credentials, WallTime now);

}  // namespace guestagent

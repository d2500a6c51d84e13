// What S3's answers mean beyond their status.
#pragma once

#include <string>

#include "storage/http/store_http.h"

namespace guestagent {

// What an answer that is no success says of itself; empty where it says nothing. Input is hostile.
struct S3Refusal {
  std::string code;      // "NoSuchBucket"
  std::string message;   // for people
  std::string region;    // where the bucket is
  std::string endpoint;  // which address it would have
};
S3Refusal read_s3_refusal(const HttpResponse& response);

// The error for an answer that is no success, as status_error() but by S3's own code where there is one. `bucket` and
// `region` are the configured ones.
StoreError s3_error(const HttpRequest& request, const HttpResponse& response, const std::string& bucket,
                    const std::string& region, Clock& clock);

}  // namespace guestagent

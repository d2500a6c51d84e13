// What an HTTP status means to a caller of a store: one table for Swift, S3 and Keystone.
#pragma once

#include <string>
#include <string_view>

#include "storage/http/store_http.h"

namespace guestagent {

// "503 Service Unavailable"; a number alone where it has no known words.
std::string status_text(int status);

// The error for an answer that is no success: 408, 409 (two writers' clocks), 429, 498, 499 and 5xx are worth
// a retry (with their Retry-After), so is 422 (a checksum that did not fit: data_loss when it never fits);
// 401 and 403 are permission_denied, 404 not_found, 413 and 507 resource_exhausted (507 is retried), the rest
// is not retried. `quote`: may the answer's first words be in the message? Not where they may repeat a
// credential.
StoreError status_error(const HttpRequest& request, const HttpResponse& response, Clock& clock, bool quote = true);

// Like that, but for an answer whose content is wrong.
StoreError answer_error(const HttpRequest& request, Code code, const std::string& why, std::string brief,
                        bool retryable = true);

// The server's name in errors: "http://host:8080".
std::string server_of(std::string_view url);

}  // namespace guestagent

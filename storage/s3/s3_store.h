// S3 and what speaks like it as a store: the root is ENDPOINT/BUCKET/PREFIX (or BUCKET.ENDPOINT/PREFIX).
//
// A put carries its MD5, and its SHA-256 in the signature where the way is not encrypted; the ETag is
// compared where it is an MD5. The bucket is made when a put finds none. S3 cannot join objects without
// copying them: join() answers false. It does not say either whether a delete found anything, so remove()
// asks first.
#pragma once

#include <memory>
#include <string_view>

#include "storage/object_store.h"
#include "storage/s3/settings.h"

namespace guestagent {

// Connects to nothing. `clock` outlives the store. Throws Error(invalid_argument) for an endpoint that is no
// address, and what reading the secret file throws.
std::unique_ptr<ObjectStore> make_s3_store(const S3Settings& settings, const HttpTimeouts& timeouts,
                                           std::string_view bucket, std::string_view prefix, Clock& clock);

}  // namespace guestagent

// OpenStack Swift as a store: the root is STORAGE_URL/CONTAINER/PREFIX.
//
// A put is confirmed twice: the MD5 goes with it (the server refuses what does not fit) and the server's own
// is compared. A get is held against Content-Length (where the answer has one) and, unless the caller has a digest of
// its own, the MD5. The container is made when a put finds none.
#pragma once

#include <memory>
#include <string_view>

#include "storage/object_store.h"
#include "storage/swift/settings.h"

namespace guestagent {

// Connects to nothing. `clock` outlives the store. Throws what reading the secret files throws.
std::unique_ptr<ObjectStore> make_swift_store(const SwiftSettings& settings, const HttpTimeouts& timeouts,
                                              std::string_view container, std::string_view prefix, Clock& clock);

}  // namespace guestagent

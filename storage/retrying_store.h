// A store that tries again: capped exponential backoff with full jitter, a server's Retry-After honoured (never less than asked, but
// capped at the policy's max_delay times 4), at most `tries` attempts. When it gives up, one error tells all of them:
// "put segment-00000017: 5 tries in 93 s: 503, 503, stalled 30 s, 503, 503".
#pragma once

#include <memory>

#include "config/settings.h"
#include "storage/object_store.h"

namespace guestagent {

// `clock` outlives the store.
std::unique_ptr<ObjectStore> make_retrying_store(std::unique_ptr<ObjectStore> inner, RetrySettings policy, Clock& clock);

}  // namespace guestagent

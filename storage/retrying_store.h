// A store that tries again: capped exponential backoff with full jitter, a server's Retry-After honoured (never less
// than asked, but capped at the policy's max_delay times 4), at most `tries` attempts. When it gives up, one error
// tells all of them: "put segment-00000017: 5 tries in 93 s: 503, 503, stalled 30 s, 503, 503; the last:
// http://swift:8080: answered 503 Service Unavailable", with the code and hint of the last.
//
// What a repeat means: put, get, stat and join are the same when done twice, and put_new() knows what an earlier try
// has stored. remove() answers true when an earlier try failed and a later one finds nothing: that try may well have
// done it. list() tells each object once, whatever is repeated; what its callback throws is the caller's and is never
// tried again.
#pragma once

#include <memory>

#include "config/settings.h"
#include "storage/object_store.h"

namespace guestagent {

// `clock` outlives the store.
std::unique_ptr<ObjectStore> make_retrying_store(std::unique_ptr<ObjectStore> inner, RetrySettings policy,
                                                 Clock& clock);

}  // namespace guestagent

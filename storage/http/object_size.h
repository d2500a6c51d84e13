// The size of an object whose HEAD does not tell it: proxies may leave Content-Length out.
#pragma once

#include <cstdint>
#include <optional>

#include "storage/http/store_http.h"

namespace guestagent {

// The request for an object's first byte, whose answer tells how many there are; `head` is that which told nothing.
HttpRequest size_request(const HttpRequest& head);

// What the answer to it tells; nullopt where there is no such object any more. Throws StoreError where it is no answer
// to that.
std::optional<std::uint64_t> size_told(const HttpRequest& request, const HttpResponse& response, Clock& clock);

}  // namespace guestagent

// What makes two changing requests the same one.
#pragma once

#include "controller/state.h"
#include "net/http_server.h"

namespace guestagent::controller {

// The key that the caller gave, and a digest of the method, the path, the query and the body as JSON: neither the order
// of members and query fields nor white space counts. A body that is no JSON counts as it is. invalid_argument for a
// key that is longer than 255 bytes or has other than printable ASCII.
RequestMark mark_of(const ReceivedRequest& request);

}  // namespace guestagent::controller

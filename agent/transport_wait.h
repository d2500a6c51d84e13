// Waiting for a descriptor, as both transports do it.
#pragma once

#include <optional>

#include "agent/transport.h"

namespace guestagent {

// Waits until `fd` is ready for `events` (of poll); the reason why not otherwise. `wake_fd` -1: nothing wakes
// it.
std::optional<Transport::End> wait_ready(int fd, short events, int wake_fd, SteadyTime deadline);

// Ends a connection so that its peer can read what it was sent.
void linger_and_close(int fd);
// `half`: also when it only sends no more; all that TCP shows of a peer that has closed.
bool peer_has_closed(int fd, bool half);

}  // namespace guestagent

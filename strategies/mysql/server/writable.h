// A server that refuses every writer, as a replica on MySQL does (super_read_only; on MariaDB 12
// read_only=NO_LOCK_NO_ADMIN), refuses the statements on accounts and plugins as well, which a source needs.
#pragma once

#include "base/journal.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

// While it lives those get through who may pass read_only, which stays on for everybody else. Journaled. Does nothing
// where nobody is refused that much.
class Writable {
 public:
  Writable(ServerClient& client, Journal& journal);
  // After an error: as close(), but a failure is only logged; the journal then still names it for refuse_again().
  ~Writable();
  Writable(const Writable&) = delete;
  Writable& operator=(const Writable&) = delete;

  // Refuses again. Throws Error where that fails.
  void close();

 private:
  ServerClient& client_;
  Journal& journal_;
  bool open_ = false;
};

// After a crash between the two, by the journal. Idempotent.
void refuse_again(ServerClient& client, Journal& journal);

}  // namespace guestagent::mysql

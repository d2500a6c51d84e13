// A listener's certificates, and what it thinks of its clients'.
#pragma once

#include <openssl/types.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "net/http_server.h"

namespace guestagent {

// Thread-safe.
class ServerTls {
 public:
  // Throws Error naming the file that cannot be used.
  explicit ServerTls(const HttpTls& settings);
  bool on() const { return !settings_.certificate.empty(); }
  // Reads the files again. Throws Error, and goes on with what it had.
  void reload();
  // What holds for a connection that begins now, and which reading of the files it is of.
  std::shared_ptr<SSL_CTX> context(unsigned& generation) const;
  unsigned generation() const { return generation_; }
  // The name of a client that showed a certificate that counts, after the handshake.
  std::optional<std::string> client_name(SSL* connection) const;

 private:
  const HttpTls settings_;
  mutable std::mutex mutex_;
  std::shared_ptr<SSL_CTX> context_;  // replaced as a whole; guarded by the mutex
  std::atomic<unsigned> generation_{0};
};

}  // namespace guestagent

// One accepted connection as bytes with a deadline, plain or TLS.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "config/settings.h"

namespace guestagent {

// Not thread-safe, throws nothing.
class Transport {
 public:
  enum class End { closed, timed_out, stopping, broken };

  virtual ~Transport() = default;
  // Gets as far as the first byte of the peer's own: the handshake of TLS, and who the peer is. False, with `end` set,
  // when that fails. Once is enough.
  virtual bool establish(End& end) = 0;
  // At least one byte, at most `size`; `end` is set and 0 answered when there is none: the peer closed, the
  // deadline passed, or `wake_fd` became readable (the server stops).
  virtual std::size_t read(void* into, std::size_t size, End& end) = 0;
  // The same without the wake: a started answer is finished.
  virtual std::size_t write(const void* from, std::size_t size, End& end) = 0;
  // No more will be written; what the peer still sends is thrown away for a moment, so that it can read the
  // answer first.
  virtual void finish() = 0;
  // True when the peer has closed the connection.
  virtual bool peer_gone() = 0;

  void expires_after(Millis duration) { deadline_ = std::chrono::steady_clock::now() + duration; }

 protected:
  SteadyTime deadline_ = SteadyTime::max();
};

// `wake_fd` is not owned.
std::unique_ptr<Transport> make_plain_transport(UniqueFd fd, int wake_fd);

// Certificates for a listener that asks for those of its clients. Thread-safe once made.
class TlsContext {
 public:
  // Throws Error naming the file that cannot be used.
  explicit TlsContext(const TlsListenSettings& settings);
  ~TlsContext();
  // Reads the files again: for new connections, and those that are there end after their answer. Throws Error, and goes
  // on with what it had.
  void reload();
  // Its handshake happens in establish(). Its failure, and a certificate of a name that is not allowed, is End::broken
  // (logged).
  std::unique_ptr<Transport> make_transport(UniqueFd fd, int wake_fd);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace guestagent

// HTTP/1.1 on the agent's socket: POST /rpc, GET /healthz, GET /metrics, GET /jobs/{id}/events; the same by
// TLS with client certificates where agent.listen is set (net/http_server.h).
//
// A request with an Origin is a web page's and refused: no page has business here, and a browser may hold a client
// certificate.
#pragma once

#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "agent/dispatcher.h"
#include "agent/jobs.h"
#include "config/settings.h"

namespace guestagent {

// So that input from outside is bounded.
struct ServerLimits {
  std::size_t request_bytes = std::size_t{1} << 20;  // of a body; a head may have 16 KiB
  Millis request_timeout{30000};                     // for a whole request to come, and for an answer to be taken
  unsigned connections = 64;                         // at a time, on each of the two listeners; more are told 503
  // Root's and the agent's own user's, on the socket, beyond those: who may set things right always gets in.
  unsigned reserved = 8;
  // TLS connections that have not yet shown a certificate: strangers. In all, from one address, and for how long. One
  // more takes the place of the oldest.
  unsigned strangers = 32, strangers_of_one = 12;
  Millis handshake_timeout{5000};
};

class Server {
 public:
  using Text = std::function<std::string()>;
  // Listens at once (a stale socket file is replaced; a live one is already_exists); `metrics` answers GET
  // /metrics. All outlive it.
  Server(const AgentSettings& settings, Dispatcher& dispatcher, Jobs& jobs, Text metrics, ServerLimits limits = {});
  ~Server();
  // Serves until `stop`; a connection in the middle of an answer gets it (so stop the jobs that one waits for
  // first).
  void run(std::stop_token stopped);
  // Reads the TLS files again, where there is a TLS listener. Throws Error, and goes on with what it had. Thread-safe.
  void reload_tls();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent

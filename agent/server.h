// HTTP/1.1 on the agent's socket: POST /rpc, GET /healthz, GET /metrics, GET /jobs/{id}/events. Boost.Beast is confined to server.cc.
#pragma once

#include <atomic>
#include <memory>
#include <stop_token>

#include "agent/dispatcher.h"
#include "agent/jobs.h"
#include "config/settings.h"

namespace guestagent {

// Limits, so that input from outside is bounded: a request's head and body, the time to send it, and connections at a time.
inline constexpr std::size_t kMaxRequestBytes = std::size_t{1} << 20;
inline constexpr Millis kRequestTimeout{30000};
inline constexpr unsigned kMaxConnections = 64;

class Server {
 public:
  using Text = std::function<std::string()>;
  // Listens at once (a stale socket file is replaced; a live one is already_exists); `metrics` answers GET /metrics.
  Server(const AgentSettings& settings, Dispatcher& dispatcher, Jobs& jobs, Text metrics);
  ~Server();
  // Serves until `stop`; a connection in the middle of an answer gets it.
  void run(std::stop_token stop);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent

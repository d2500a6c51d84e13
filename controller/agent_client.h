// The agents, by their JSON-RPC over HTTP and by nothing else.
#pragma once

#include <stop_token>
#include <string>
#include <string_view>

#include "config/controller_settings.h"
#include "net/http_client.h"

namespace guestagent::controller {

// The agent did not answer at all, or only that it cannot now: what it does is not known. Anything else that
// a call throws is its answer.
class NoAnswer : public Error {
 public:
  explicit NoAnswer(const Error& error) : Error(error) {}
};

// Thread-safe.
class Agents {
 public:
  virtual ~Agents() = default;
  // The `result` of a method as JSON text, for params as a JSON object. Throws the agent's error with its
  // code and hint, NoAnswer, or cancelled on `stop`. Every call the controller makes may be repeated: jobs
  // have ids of its choice, and the rest only looks.
  virtual std::string call(const std::string& address, std::string_view method, std::string_view params,
                           std::stop_token stop) = 0;
};

class AgentClient : public Agents {
 public:
  // Throws Error when the TLS files cannot be used.
  explicit AgentClient(const AgentAccessSettings& settings);
  // Also throws invalid_argument for an address that agent_address() does not let through.
  std::string call(const std::string& address, std::string_view method, std::string_view params,
                   std::stop_token stop) override;

 private:
  const AgentAccessSettings settings_;
  HttpClient http_;
};

}  // namespace guestagent::controller

// JSON-RPC 2.0: text in, text out. The daemon's server and --oneshot call the same one, so they cannot differ.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/jobs.h"
#include "agent/operations.h"

namespace guestagent {

class Dispatcher {
 public:
  // All outlive it. `allow_async` is false for --oneshot, whose process ends with the answer.
  Dispatcher(Operations& operations, Jobs& jobs, bool allow_async);
  ~Dispatcher();

  // Answers a request of any bytes with a response object (or nothing for a notification). Never throws. Thread-safe.
  std::string handle(std::string_view request);

  // One call: the result as JSON text; throws Error. What handle() and --oneshot share.
  std::string call(const std::string& method, std::string_view params_json);

  std::vector<std::string> methods() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The JSON-RPC error object of an Error.
std::string write_rpc_error(const Error& error, const std::string& job_id = {});

}  // namespace guestagent

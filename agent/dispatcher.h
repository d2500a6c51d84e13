// JSON-RPC 2.0: text in, text out. The daemon's server and --oneshot call the same one, so they cannot
// differ.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/jobs.h"
#include "agent/methods.h"
#include "agent/operations.h"
#include "agent/rpc_error.h"

namespace guestagent {

// A batch is answered one after the other; a longer one is refused.
inline constexpr unsigned kMaxBatch = 20;

class Dispatcher {
 public:
  // All outlive it. `allow_async` is false for --oneshot, whose process ends with the answer.
  Dispatcher(Operations& operations, Jobs& jobs, bool allow_async);
  ~Dispatcher();

  using Gone = CallerGone;

  // Answers a request of any bytes with a response object (or nothing for a notification). Never throws.
  // Thread-safe. When `gone` says so (asked about every second) a wait for a job ends; the job does not.
  std::string handle(std::string_view request, const Gone& gone = {});

  // One call: the result as JSON text; throws Error (JobError when a job ran). What handle() and --oneshot
  // share.
  std::string call(const std::string& method, std::string_view params_json);

  std::vector<std::string_view> methods() const;

  // Answers so far, by method ("" for one that does not exist) and code ("OK" or the error's).
  std::map<std::pair<std::string, std::string>, std::uint64_t> counts() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// True for the methods that run as jobs, whose progress can be followed.
bool runs_as_job(std::string_view method);

}  // namespace guestagent

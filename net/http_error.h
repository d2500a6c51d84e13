// Why there is no answer to an HTTP request.
#pragma once

#include <string>
#include <utility>

#include "base/error.h"

namespace guestagent {

class HttpError : public Error {
 public:
  HttpError(Code code, const std::string& message, std::string hint, bool retryable, std::string brief)
      : Error(code, message, std::move(hint)), retryable_(retryable), brief_(std::move(brief)) {}
  // Whether the same request may get an answer later.
  bool retryable() const { return retryable_; }
  // A word or two: "stalled 30 s", "reset".
  const std::string& brief() const { return brief_; }
  static constexpr const char* kTooLarge = "too large";

 private:
  bool retryable_;
  std::string brief_;
};

// What helps, in the words of the caller's configuration.
struct HttpHints {
  std::string ca = "set the CA that signed it";  // … its certificate is not to be trusted
  std::string certificate =                      // … it does not take ours, or wants one
      "check the certificates on both sides: who signed them, for which name, until when";
  std::string ca_file = "it must be a readable file of PEM certificates";  // … the CA's file cannot be used
  std::string socket_user = {};                                            // … somebody else serves the socket
};

}  // namespace guestagent

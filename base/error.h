// The one exception of the project, and the one table of its codes.
//
// An Error is thrown where the fact is known, gets context where that helps, and is caught once, at the boundary of the
// operation, where it is logged and answered. Its message reads "doing what: which thing: why"; its hint says what to
// do.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace guestagent {

// The canonical codes of gRPC/abseil, and `busy`.
enum class Code {
  cancelled,
  invalid_argument,
  deadline_exceeded,
  not_found,
  already_exists,
  permission_denied,
  resource_exhausted,
  failed_precondition,
  unimplemented,
  internal,
  unavailable,
  data_loss,
  busy,
};

// How one code is shown to each kind of reader. Wire strings and numbers are part of the RPC contract.
struct CodeRow {
  Code code;
  std::string_view wire;  // "FAILED_PRECONDITION"
  int rpc;                // JSON-RPC error number
  int exit_status;        // of `guestagent --oneshot` and the other commands; never 0 or 1
};

// The row of `code`. Every code has one.
const CodeRow& code_row(Code code);

// The code with that wire string; Code::internal for a string nobody knows (an answer of a newer agent).
Code code_from_wire(std::string_view wire);

class Error : public std::runtime_error {
 public:
  // `hint` may be empty where nothing useful can be said; neither text ever holds a secret.
  Error(Code code, const std::string& message, std::string hint = {})
      : std::runtime_error(message), code_(code), hint_(std::move(hint)) {}

  Code code() const { return code_; }
  const std::string& hint() const { return hint_; }

  // A copy whose message is "`what`: message".
  Error with_context(std::string_view what) const;

 private:
  Code code_;
  std::string hint_;
};

// The failure of a system call, with the code that fits `err` (ENOSPC and EFBIG are resource_exhausted, ENOENT
// not_found, EACCES and EPERM permission_denied, the rest internal) and a hint for those an operator can mend.
Error system_error(std::string_view what, int err);

// What any exception is to us: an Error as it is, everything else as Code::internal with its what().
Error to_error(const std::exception& e);

// Runs `f`; an Error that leaves it says `what` first.
template <typename F>
auto with_context(std::string_view what, F&& f) {
  try {
    return f();
  } catch (const Error& e) {
    throw e.with_context(what);
  }
}

}  // namespace guestagent

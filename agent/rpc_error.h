// The JSON-RPC error object: {"code": NUMBER, "message": …, "data": {"code": "FAILED_PRECONDITION", "hint":
// …, "job_id": …}}.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace guestagent {

std::string write_rpc_error(const Error& error, const std::string& job_id = {});
// With another number than the code's own: JSON-RPC's parse error and invalid request.
std::string write_rpc_error(const Error& error, int number);

// The error's own hint, or, where nobody had a better one, what helps with most errors of its code.
std::string hint_of(const Error& error);

// The way back, lenient: what is missing in an object of another agent becomes INTERNAL and an empty hint.
Error read_rpc_error(std::string_view json);

}  // namespace guestagent

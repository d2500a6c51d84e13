// What a call throws, as a value to look at.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>

#include "base/error.h"

namespace guestagent::test {

// The Error that `call` throws; the test fails, and the answer is Code::internal, when it throws none.
inline Error error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error was thrown";
  return Error(Code::internal, "no error was thrown");
}

inline std::string code_of(const std::function<void()>& call) {
  const Error error = error_of(call);
  return std::string(code_row(error.code()).wire);
}

}  // namespace guestagent::test

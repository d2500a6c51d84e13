// Who asks a server for something, by what the connection and its words prove: one type for both roles.
#pragma once

#include <string>
#include <string_view>

#include "base/secret.h"

namespace guestagent {

struct Caller {
  enum class Kind {
    nobody,       // has proven nothing
    token,        // knows the bearer token
    certificate,  // showed one of the client CA, with an allowed name
    local_user,   // by the Unix socket; by the kernel's word one who may use it
  };
  Kind kind = Kind::nobody;
  std::string name;  // for logs: "uid 1000", "certificate NAME at ADDRESS", "token at ADDRESS", "ADDRESS"

  // May ask for whatever a role does.
  bool proven() const { return kind != Kind::nobody; }
};

// `known` by its connection; with a request's Authorization it may be more. `token` empty: there is none.
Caller with_token(const Caller& known, std::string_view authorization, const Secret& token);

}  // namespace guestagent

#include "net/caller.h"

#include <openssl/crypto.h>

namespace guestagent {

Caller with_token(const Caller& known, std::string_view authorization, const Secret& token) {
  constexpr std::string_view kBearer = "Bearer ";
  if (known.proven() || token.empty() || !authorization.starts_with(kBearer)) return known;
  authorization.remove_prefix(kBearer.size());
  const std::string& right = token.reveal();
  if (authorization.size() != right.size() || ::CRYPTO_memcmp(authorization.data(), right.data(), right.size()) != 0)
    return known;
  return {Caller::Kind::token, "token at " + known.name};
}

}  // namespace guestagent

// Passwords as the server stores them, computed here, so that no statement (and so no binary or general log)
// has the password itself.
#pragma once

#include <string>
#include <string_view>

#include "base/secret.h"
#include "strategies/mysql/server/dialect.h"

namespace guestagent::mysql {

// "*" and the SHA-1 of the SHA-1 in upper-case hex: mysql_native_password.
std::string native_password_hash(const Secret& password);

// "$A$005$" salt digest: caching_sha2_password, 5000 rounds of SHA-crypt. `salt` is 20 printable characters
// without '$'.
std::string caching_sha2_hash(const Secret& password, std::string_view salt);

// The hash of that kind, with a new salt where it has one.
std::string account_hash(AccountHash kind, const Secret& password);

}  // namespace guestagent::mysql

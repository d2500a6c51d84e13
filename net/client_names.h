// Who a TLS client's certificate says it is: for both roles' lists of allowed names.
#pragma once

#include <openssl/types.h>

#include <string>
#include <vector>

namespace guestagent {

// Its subject's common names and its DNS names, each whole, as UTF-8. One that has a zero byte is none: to a reader in
// C it would look like a shorter one.
std::vector<std::string> client_names(const X509* certificate);

}  // namespace guestagent

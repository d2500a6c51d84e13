// What a CA has revoked, for listeners that ask their clients for certificates.
#pragma once

#include <openssl/types.h>

#include "base/file.h"

namespace guestagent {

// From now on the store takes a certificate only where the lists in the file (PEM, one of each CA in its chain) are in
// force and do not name it. Throws invalid_argument for a file that has none.
void use_client_crl(X509_STORE* store, const fs::path& file);

}  // namespace guestagent

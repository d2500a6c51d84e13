// The PEM files of a client that speaks TLS.
#pragma once

#include "base/file.h"

namespace guestagent {

// Throws Error(invalid_argument), naming the file that cannot be used. Empty ones are none.
void check_client_files(const fs::path& ca_file, const fs::path& certificate, const fs::path& key);

}  // namespace guestagent

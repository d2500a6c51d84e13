// The configured encryption keys.
#pragma once

#include <optional>
#include <string_view>

#include "config/settings.h"
#include "storage/snapshot_format.h"

namespace guestagent {

// Reads the key file of `id` and derives what a snapshot needs from it. failed_precondition when no such key is configured,
// invalid_argument when the file is not exactly 32 bytes, permission_denied when others than its owner can read it.
SnapshotKeys load_keys(const EncryptionSettings& settings, std::string_view id);

}  // namespace guestagent

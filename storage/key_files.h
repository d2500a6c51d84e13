// The configured encryption keys.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "config/settings.h"
#include "storage/snapshot_format.h"

namespace guestagent {

// Reads the key file of `id` and derives what a snapshot needs from it. failed_precondition when no such key is
// configured, invalid_argument when the file is not exactly 32 bytes, permission_denied when others than its owner can
// read it.
SnapshotKeys load_keys(const EncryptionSettings& settings, std::string_view id);

// What a snapshot is read with whose manifest names the key `id`, any of those that are configured; nullopt for one
// that is not encrypted. failed_precondition for such a one where there is a write_key: what this host knows as
// encrypted must not be replaced by what is not.
std::optional<SnapshotKeys> keys_to_read(const EncryptionSettings& settings, const std::optional<std::string>& id);

}  // namespace guestagent

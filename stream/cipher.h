// AES-256-GCM of one segment: stored = nonce (12 bytes) ‖ ciphertext ‖ tag (16).
#pragma once

#include <string_view>

#include "stream/digest.h"

namespace guestagent {

inline constexpr std::size_t kCipherOverhead = 12 + 16;

// Encrypts `plain` (freed chunk by chunk) under a fresh random nonce; `context` is authenticated, not stored.
// Thread-safe.
Buffer encrypt(const Key& key, std::string_view context, Buffer plain);

// The reverse. Throws Error(data_loss) unless every byte, the tag and `context` are those of encrypt(). Thread-safe.
Buffer decrypt(const Key& key, std::string_view context, Buffer stored);

}  // namespace guestagent

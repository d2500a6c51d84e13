// Digests and keyed digests. Hex is lower case.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "stream/buffer.h"

namespace guestagent {

std::string to_hex(Bytes data);

enum class Hash { sha256, md5 };

// An incremental digest. Not thread-safe.
class Hasher {
 public:
  explicit Hasher(Hash kind);
  Hasher(Hasher&&) noexcept;
  ~Hasher();
  void update(Bytes data);
  // Once, at the end.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(Bytes data);
std::string sha256_hex(const Buffer& data);
std::string md5_hex(const Buffer& data);
// XXH3-128 of the bytes, as 32 hex digits in the canonical (big-endian) order that `xxhsum -H2` prints.
std::string xxh3_hex(const Buffer& data);

using Key = std::array<std::byte, 32>;

// HMAC-SHA256 as hex.
std::string hmac_sha256_hex(const Key& key, Bytes data);
// HKDF-SHA256 (RFC 5869) of `key` with an empty salt and `info`.
Key hkdf_sha256(const Key& key, std::string_view info);
// Compares in time that does not depend on the content.
bool equal_in_constant_time(std::string_view a, std::string_view b);

}  // namespace guestagent

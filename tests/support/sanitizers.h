// What a sanitizer adds to the memory that a test measures.
#pragma once

#include <cstdint>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define GUESTAGENT_ADDRESS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define GUESTAGENT_ADDRESS_SANITIZER
#endif

namespace guestagent::test {

// Bytes of the address sanitizer's shadow for `bytes` in use: one for each eight of the program's. 0 in other
// builds.
constexpr std::uint64_t shadow_of([[maybe_unused]] std::uint64_t bytes) {
#ifdef GUESTAGENT_ADDRESS_SANITIZER
  return bytes / 8;
#else
  return 0;
#endif
}

}  // namespace guestagent::test

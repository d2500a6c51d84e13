// Bytes for tests, the same from the same seed everywhere.
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "stream/buffer.h"

namespace guestagent::test {

// Nothing to compress in it.
inline std::string random_bytes(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 next(seed);
  std::string bytes;
  bytes.reserve(size + 8);
  while (bytes.size() < size) {
    const std::uint64_t word = next();
    bytes.append(reinterpret_cast<const char*>(&word), sizeof(word));
  }
  bytes.resize(size);
  return bytes;
}

// Like the pages of a database: repeated words between random ones; shrinks to a bit less than half.
inline std::string page_bytes(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 next(seed);
  std::string bytes;
  bytes.reserve(size + 40);
  while (bytes.size() < size) {
    bytes += "row " + std::to_string(next() % 100000) + " customer ";
    const std::uint64_t word = next();
    bytes.append(reinterpret_cast<const char*>(&word), sizeof(word));
  }
  bytes.resize(size);
  return bytes;
}

inline std::string text_of(const Buffer& buffer) {
  return buffer.text();
}

// A stream over a string, in pieces of at most `piece` bytes.
class StringSource : public ByteSource {
 public:
  explicit StringSource(std::string bytes, std::size_t piece = 65536) : bytes_(std::move(bytes)), piece_(piece) {}
  std::size_t read(std::span<std::byte> into) override {
    const std::size_t n = std::min({into.size(), piece_, bytes_.size() - at_});
    bytes_.copy(reinterpret_cast<char*>(into.data()), n, at_);
    at_ += n;
    return n;
  }

 private:
  std::string bytes_;
  std::size_t piece_;
  std::size_t at_ = 0;
};

}  // namespace guestagent::test

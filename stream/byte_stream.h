// The two ends of every data path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace guestagent {

using Bytes = std::span<const std::byte>;

// Where bytes come from. Not thread-safe; one reader.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills up to `into.size()` bytes and answers how many; 0 is the end, and only a *good* end: a source that was cut
  // short, whose process failed or whose digest is wrong throws Error instead.
  virtual std::size_t read(std::span<std::byte> into) = 0;
  // The last place in what was read, in bytes from the beginning, where a reader could begin without what came before
  // it; 0: only at the beginning.
  virtual std::uint64_t last_start() const { return 0; }
};

// Where bytes go. Not thread-safe; one writer.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  // All of `data`, or Error.
  virtual void write(Bytes data) = 0;
  // The end of a whole stream: what was written is complete. A sink that dies without it treats what it has as waste.
  virtual void finish() = 0;
};

inline Bytes as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace guestagent

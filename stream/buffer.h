// Bytes in memory in chunks of one size, so that a segment can be freed while it is compressed and grow while it is
// received: what is in flight is what is counted, and the heap does not fragment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "stream/byte_stream.h"

namespace guestagent {

// Measured: page faults on fresh memory cost as much as MD5; chunks are used again instead of being given back. The
// process keeps at most kFreeChunks unused ones; release_free_chunks() gives those to the system when a transfer is
// over. Thread-safe.
inline constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
inline constexpr std::size_t kFreeChunks = 64;
void release_free_chunks();

// A sequence of bytes. Movable, not copyable; not thread-safe, but const use from several threads is.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  static Buffer from(std::string_view text);

  std::uint64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  void append(Bytes data);
  void clear();

  // Room for reading straight into the buffer: a non-empty span at its end; commit() says how much of it was filled.
  std::span<std::byte> room();
  void commit(std::size_t n);

  // The chunks in order; each but the last, and the first of what was split off, is kChunkBytes long.
  std::vector<Bytes> chunks() const;
  // Takes the first chunk out of the buffer, as a buffer of its own; empty when there is none. For consumers that free
  // as they go.
  Buffer pop_front();

  // Takes what is from `at` on (at most size()) out of the buffer, as one of its own that keeps its memory: only the
  // chunk in which `at` lies is copied in part.
  Buffer split(std::uint64_t at);

  // All of it as one string: for small objects (manifests, indexes).
  std::string text() const;

  // What `bytes` of content occupy: whole chunks.
  static constexpr std::uint64_t footprint(std::uint64_t bytes) {
    return (bytes + kChunkBytes - 1) / kChunkBytes * kChunkBytes;
  }

 private:
  struct GiveBack {
    void operator()(std::byte* memory) const noexcept;
  };
  using Chunk = std::unique_ptr<std::byte[], GiveBack>;
  static Chunk new_chunk();
  std::vector<Chunk> chunks_;
  std::size_t head_ = 0;  // bytes at the beginning of the first chunk that are none of the content
  std::uint64_t size_ = 0;
};

}  // namespace guestagent

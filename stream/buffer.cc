#include "stream/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <mutex>
#include <new>
#include <utility>

namespace guestagent {
namespace {

// Straight from the system: the allocator would keep freed megabytes in the heaps of whichever thread freed them.
std::byte* map_chunk() {
  void* memory = ::mmap(nullptr, kChunkBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<std::byte*>(memory);
}

class FreeChunks {
 public:
  FreeChunks() { free_.reserve(kFreeChunks); }

  std::byte* take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        std::byte* memory = free_.back();
        free_.pop_back();
        return memory;
      }
    }
    return map_chunk();
  }

  void give(std::byte* memory) noexcept {
    {
      const std::lock_guard lock(mutex_);
      if (free_.size() < kFreeChunks) {
        free_.push_back(memory);
        return;
      }
    }
    ::munmap(memory, kChunkBytes);
  }

  void release() {
    std::vector<std::byte*> unused;
    unused.reserve(kFreeChunks);
    {
      const std::lock_guard lock(mutex_);
      unused.swap(free_);
      free_.reserve(kFreeChunks);
    }
    for (std::byte* memory : unused) ::munmap(memory, kChunkBytes);
  }

 private:
  std::mutex mutex_;
  std::vector<std::byte*> free_;
};

// Never destroyed: a buffer may outlive every other object of the process.
FreeChunks& free_chunks() {
  static FreeChunks* const pool = new FreeChunks;
  return *pool;
}

}  // namespace

void release_free_chunks() {
  free_chunks().release();
}

void Buffer::GiveBack::operator()(std::byte* memory) const noexcept {
  free_chunks().give(memory);
}

Buffer::Chunk Buffer::new_chunk() {
  return Chunk(free_chunks().take());
}

Buffer::Buffer(Buffer&& other) noexcept
    : chunks_(std::move(other.chunks_)), head_(std::exchange(other.head_, 0)), size_(std::exchange(other.size_, 0)) {
  other.chunks_.clear();
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this == &other) return *this;
  chunks_ = std::move(other.chunks_);
  other.chunks_.clear();
  head_ = std::exchange(other.head_, 0);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

Buffer::~Buffer() = default;

Buffer Buffer::from(std::string_view text) {
  Buffer buffer;
  buffer.append(as_bytes(text));
  return buffer;
}

void Buffer::append(Bytes data) {
  while (!data.empty()) {
    const std::span<std::byte> space = room();
    const std::size_t n = std::min(space.size(), data.size());
    std::memcpy(space.data(), data.data(), n);
    commit(n);
    data = data.subspan(n);
  }
}

void Buffer::clear() {
  chunks_.clear();
  head_ = 0;
  size_ = 0;
}

std::span<std::byte> Buffer::room() {
  const std::size_t used = static_cast<std::size_t>((head_ + size_) % kChunkBytes);
  if (head_ + size_ == chunks_.size() * kChunkBytes) chunks_.push_back(new_chunk());
  return {chunks_.back().get() + used, kChunkBytes - used};
}

void Buffer::commit(std::size_t n) {
  size_ += n;
}

std::vector<Bytes> Buffer::chunks() const {
  std::vector<Bytes> spans;
  spans.reserve(chunks_.size());
  std::uint64_t left = size_;
  std::size_t skipped = head_;
  for (const Chunk& chunk : chunks_) {
    const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(left, kChunkBytes - skipped));
    if (n == 0) break;
    spans.emplace_back(chunk.get() + skipped, n);
    skipped = 0;
    left -= n;
  }
  return spans;
}

Buffer Buffer::pop_front() {
  Buffer first;
  if (size_ == 0) return first;
  first.head_ = std::exchange(head_, 0);
  first.size_ = std::min<std::uint64_t>(size_, kChunkBytes - first.head_);
  first.chunks_.push_back(std::move(chunks_.front()));
  chunks_.erase(chunks_.begin());
  size_ -= first.size_;
  return first;
}

Buffer Buffer::split(std::uint64_t at) {
  Buffer tail;
  if (at >= size_) return tail;
  const std::size_t from = static_cast<std::size_t>((head_ + at) / kChunkBytes);
  tail.head_ = static_cast<std::size_t>((head_ + at) % kChunkBytes);
  tail.size_ = size_ - at;
  if (tail.head_ > 0) {
    // Both have a part of this chunk.
    tail.chunks_.push_back(new_chunk());
    const std::size_t n =
        static_cast<std::size_t>(std::min<std::uint64_t>(tail.size_, std::uint64_t{kChunkBytes - tail.head_}));
    std::memcpy(tail.chunks_.front().get() + tail.head_, chunks_[from].get() + tail.head_, n);
  }
  const auto moved = chunks_.begin() + static_cast<std::ptrdiff_t>(from + (tail.head_ > 0 ? 1 : 0));
  tail.chunks_.insert(tail.chunks_.end(), std::make_move_iterator(moved), std::make_move_iterator(chunks_.end()));
  chunks_.erase(moved, chunks_.end());
  size_ = at;
  return tail;
}

std::string Buffer::text() const {
  std::string all;
  all.reserve(static_cast<std::size_t>(size_));
  for (const Bytes chunk : chunks()) all.append(reinterpret_cast<const char*>(chunk.data()), chunk.size());
  return all;
}

}  // namespace guestagent

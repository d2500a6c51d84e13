#include "stream/zstd_frame.h"

#include <algorithm>
#include <array>
#include <string>

#include "base/error.h"

namespace guestagent {
namespace {

constexpr std::uint64_t kMagic = 0xFD2FB528;
constexpr std::uint64_t kAlwaysAllowedWindow = std::uint64_t{8} << 20;

Error malformed(const char* why) {
  return Error(Code::data_loss, std::string("decompressing zstd: ") + why);
}

class Cursor {
 public:
  explicit Cursor(const Buffer& buffer) : chunks_(buffer.chunks()), size_(buffer.size()) {}

  // The next `bytes` (at most 8) as a little-endian number.
  std::uint64_t number(unsigned bytes) {
    need(bytes);
    std::uint64_t value = 0;
    for (unsigned i = 0; i < bytes; ++i, ++at_) {
      const std::byte b =
          chunks_[static_cast<std::size_t>(at_ / kChunkBytes)][static_cast<std::size_t>(at_ % kChunkBytes)];
      value |= std::to_integer<std::uint64_t>(b) << (8 * i);
    }
    return value;
  }
  void skip(std::uint64_t bytes) {
    need(bytes);
    at_ += bytes;
  }
  bool at_end() const { return at_ == size_; }

 private:
  void need(std::uint64_t bytes) const {
    if (size_ - at_ < bytes) throw malformed("it ends too early");
  }
  std::vector<Bytes> chunks_;
  std::uint64_t size_;
  std::uint64_t at_ = 0;
};

// Reads the frame's header; answers whether a checksum follows the last block.
bool read_header(Cursor& cursor, std::uint64_t raw_size) {
  if (cursor.number(4) != kMagic) throw malformed("it is something else");
  const std::uint64_t descriptor = cursor.number(1);
  const bool single_segment = (descriptor & 0x20) != 0;
  std::uint64_t window = 0;
  if (!single_segment) {
    const std::uint64_t packed = cursor.number(1);
    const std::uint64_t base = std::uint64_t{1} << (10 + (packed >> 3));
    window = base + base / 8 * (packed & 7);
  }
  static constexpr std::array<unsigned, 4> kDictionaryIdBytes = {0, 1, 2, 4};
  cursor.skip(kDictionaryIdBytes[descriptor & 3]);
  const std::array<unsigned, 4> content_size_bytes = {single_segment ? 1U : 0U, 2, 4, 8};
  const std::uint64_t content_size = cursor.number(content_size_bytes[descriptor >> 6]);
  if (single_segment) window = content_size;
  if (window > std::max(kAlwaysAllowedWindow, raw_size)) throw malformed("it wants more memory than its content needs");
  return (descriptor & 4) != 0;
}

}  // namespace

void check_zstd_frame(const Buffer& stored, std::uint64_t raw_size) {
  Cursor cursor(stored);
  const bool has_checksum = read_header(cursor, raw_size);
  for (bool last = false; !last;) {
    const std::uint64_t header = cursor.number(3);
    last = (header & 1) != 0;
    const std::uint64_t type = (header >> 1) & 3;
    constexpr std::uint64_t kRepeatedByte = 1;
    constexpr std::uint64_t kReserved = 3;
    if (type == kReserved) throw malformed("it has a block of an unknown type");
    cursor.skip(type == kRepeatedByte ? 1 : header >> 3);
  }
  if (has_checksum) cursor.skip(4);
  if (!cursor.at_end()) throw malformed("something follows its end");
}

}  // namespace guestagent

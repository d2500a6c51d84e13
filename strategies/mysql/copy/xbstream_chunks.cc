#include "strategies/mysql/copy/xbstream_chunks.h"

#include <algorithm>
#include <utility>

#include "stream/crc32.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kMagic = "XBSTCK01";
constexpr std::size_t kHead = 14;  // magic, flags, type, length of the path
constexpr std::size_t kMaxPath = 4096;
constexpr char kIgnorable = 1, kReplaces = 2;
constexpr std::size_t kHoleBytes = 8;
// A chunk has 10 MiB of pages of 512 bytes and more.
constexpr std::uint32_t kMaxHoles = (10U << 20) / 512;
// No file system has larger files.
constexpr std::uint64_t kMaxEnd = std::uint64_t{1} << 62;

template <typename T>
T little(std::string_view bytes) {
  T out = 0;
  for (std::size_t i = sizeof(T); i-- > 0;) out = static_cast<T>(out << 8 | static_cast<unsigned char>(bytes[i]));
  return out;
}

std::string_view without_dot(std::string_view path) {
  return path.starts_with("./") ? path.substr(2) : path;
}

}  // namespace

// How many bytes the part needs before it can be read; data is taken as it comes.
std::size_t XbstreamChunks::wanted() const {
  switch (part_) {
    case Part::head:
      return kHead;
    case Part::path:
    case Part::second_path:
      return text_size_;
    case Part::seek:
      return 8;
    case Part::second_size:
      return 4;
    case Part::numbers:
      return chunk_.type == XbstreamChunk::Type::holes ? 24 : 20;
    case Part::holes:
      return holes_ * kHoleBytes;
    default:
      return 0;
  }
}

// A chunk of another form, or a flag with another meaning, could be read differently by the tool: then all is lost.
void XbstreamChunks::take_head(std::string_view bytes) {
  using Type = XbstreamChunk::Type;
  const bool mariadb = maker_ == Maker::mariadb;
  const char flags = bytes[8], type = bytes[9];
  text_size_ = little<std::uint32_t>(bytes.substr(10));
  chunk_ = {};
  chunk_.type = type == 'P'              ? Type::data
                : type == 'S'            ? (mariadb ? Type::seek : Type::holes)
                : type == 'E'            ? Type::end
                : mariadb && type == 'R' ? Type::rename
                : mariadb && type == 'D' ? Type::remove
                                         : Type::unknown;
  chunk_.replaces = mariadb && type == 'P' && flags == kReplaces;
  const bool known_flags = flags == kIgnorable || (flags == 0 && chunk_.type != Type::unknown) || chunk_.replaces;
  lost_ = !bytes.starts_with(kMagic) || text_size_ == 0 || text_size_ > kMaxPath || !known_flags;
  part_ = Part::path;
}

void XbstreamChunks::take_path(std::string_view bytes, Handler& handler) {
  using Type = XbstreamChunk::Type;
  chunk_.path = without_dot(bytes);
  switch (chunk_.type) {
    case Type::end:
    case Type::remove:
      return announce(handler);
    case Type::rename:
      part_ = Part::second_size;
      return;
    case Type::seek:
      part_ = Part::seek;
      return;
    default:
      part_ = Part::numbers;
  }
}

void XbstreamChunks::take_numbers(std::string_view bytes, Handler& handler) {
  holes_ = 0;
  if (chunk_.type == XbstreamChunk::Type::holes) {
    holes_ = little<std::uint32_t>(bytes);
    bytes.remove_prefix(4);
  }
  chunk_.size = little<std::uint64_t>(bytes);
  chunk_.offset = little<std::uint64_t>(bytes.substr(8));
  chunk_.crc = little<std::uint32_t>(bytes.substr(16));
  const bool goes_nowhere = chunk_.type == XbstreamChunk::Type::holes && holes_ == 0 && chunk_.size > 0;
  lost_ = holes_ > kMaxHoles || chunk_.size > kMaxEnd || chunk_.offset > kMaxEnd || goes_nowhere;
  if (lost_) return;
  if (holes_ == 0) return begin_data(handler);
  part_ = Part::holes;
}

void XbstreamChunks::take_holes(std::string_view bytes, Handler& handler) {
  std::uint64_t sum = 0;
  for (std::size_t at = 0; at < bytes.size(); at += kHoleBytes) {
    chunk_.holes.push_back({little<std::uint32_t>(bytes.substr(at)), little<std::uint32_t>(bytes.substr(at + 4))});
    sum += chunk_.holes.back().bytes;
  }
  chunk_.crc_of_holes = crc32(0, as_bytes(bytes));
  // What is not said where it goes goes nowhere.
  lost_ = sum != chunk_.size;
  if (!lost_) begin_data(handler);
}

void XbstreamChunks::begin_data(Handler& handler) {
  left_ = chunk_.size;
  part_ = Part::data;
  if (chunk_.type != XbstreamChunk::Type::unknown) handler.chunk(chunk_);
  if (left_ == 0) end();
}

void XbstreamChunks::announce(Handler& handler) {
  handler.chunk(chunk_);
  end();
}

void XbstreamChunks::end() {
  part_ = Part::head;
  last_end_ = seen_;
}

void XbstreamChunks::take(std::string_view bytes, Handler& handler) {
  switch (part_) {
    case Part::head:
      return take_head(bytes);
    case Part::path:
      return take_path(bytes, handler);
    case Part::seek:
      chunk_.offset = little<std::uint64_t>(bytes);
      lost_ = chunk_.offset > kMaxEnd;
      if (!lost_) announce(handler);
      return;
    case Part::second_size:
      text_size_ = little<std::uint32_t>(bytes);
      lost_ = text_size_ == 0 || text_size_ > kMaxPath;
      part_ = Part::second_path;
      return;
    case Part::second_path:
      chunk_.to = without_dot(bytes);
      return announce(handler);
    case Part::numbers:
      return take_numbers(bytes, handler);
    case Part::holes:
      return take_holes(bytes, handler);
    default:
      return;
  }
}

void XbstreamChunks::see(Bytes data, Handler& handler) {
  while (!data.empty() && !lost_) {
    if (part_ == Part::data) {
      const Bytes now = data.first(static_cast<std::size_t>(std::min<std::uint64_t>(left_, data.size())));
      if (chunk_.type != XbstreamChunk::Type::unknown) handler.data(chunk_, now);
      left_ -= now.size();
      seen_ += now.size();
      data = data.subspan(now.size());
      if (left_ == 0) end();
      continue;
    }
    const Bytes now = data.first(std::min(wanted() - held_.size(), data.size()));
    held_.append(reinterpret_cast<const char*>(now.data()), now.size());
    seen_ += now.size();
    data = data.subspan(now.size());
    if (held_.size() < wanted()) return;
    const std::string whole = std::exchange(held_, {});
    take(whole, handler);
  }
}

}  // namespace guestagent::mysql

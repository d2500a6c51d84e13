#include "stream/piece_source.h"

#include <algorithm>
#include <utility>

namespace guestagent {

PiecesOf::PiecesOf(ByteSource& from, Kind kind, std::uint64_t piece_bytes)
    : from_(from), kind_(std::move(kind)), piece_bytes_(piece_bytes) {}

std::optional<Piece> PiecesOf::next_piece() {
  Piece piece;
  while (piece.bytes.size() < piece_bytes_) {
    std::span<std::byte> room = piece.bytes.room();
    room =
        room.first(static_cast<std::size_t>(std::min<std::uint64_t>(room.size(), piece_bytes_ - piece.bytes.size())));
    const std::size_t n = from_.read(room);
    if (n == 0) break;
    piece.bytes.commit(n);
  }
  if (piece.bytes.empty()) return std::nullopt;
  piece.number = ++number_;
  return piece;
}

std::uint64_t PiecesOf::skip(std::uint64_t pieces) {
  std::uint64_t bytes = 0;
  for (std::uint64_t i = 0; i < pieces; ++i) {
    const std::optional<Piece> piece = next_piece();
    if (!piece) break;
    bytes += piece->bytes.size();
  }
  return bytes;
}

}  // namespace guestagent

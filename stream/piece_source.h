// A stream in pieces that were verified, for who works on several of them at the same time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "stream/buffer.h"
#include "stream/byte_stream.h"

namespace guestagent {

struct Piece {
  std::uint64_t number = 0;  // from 1
  Buffer bytes;
  // Its share of the source's memory, given back when the last copy of this goes, in whatever thread. May outlive the
  // source.
  std::shared_ptr<void> room;
};

// Not thread-safe. What was taken as pieces is not read() any more.
class PieceSource : public ByteSource {
 public:
  // What tells this stream from all others: the same digest is the same stream in the same pieces.
  struct Kind {
    std::string format, tool;  // "xbstream", "mariadb-backup 10.11.19"
    std::string digest;        // "": not known
  };
  virtual const Kind& kind() const = 0;

  // The next, in order; nullopt at the end, and only at a *good* end, as read() tells it by 0. Waits until there is
  // memory for it: pieces that are kept hold up the next ones.
  virtual std::optional<Piece> next_piece() = 0;

  // Leaves out that many pieces, which are not even fetched; answers their bytes. REQUIRES: nothing was taken yet.
  virtual std::uint64_t skip(std::uint64_t pieces) = 0;
};

// The pieces of any stream, of `piece_bytes` each. `from` outlives it.
class PiecesOf : public PieceSource {
 public:
  PiecesOf(ByteSource& from, Kind kind, std::uint64_t piece_bytes = std::uint64_t{4} << 20);

  const Kind& kind() const override { return kind_; }
  std::optional<Piece> next_piece() override;
  std::uint64_t skip(std::uint64_t pieces) override;
  std::size_t read(std::span<std::byte> into) override { return from_.read(into); }

 private:
  ByteSource& from_;
  const Kind kind_;
  const std::uint64_t piece_bytes_;
  std::uint64_t number_ = 0;
};

}  // namespace guestagent

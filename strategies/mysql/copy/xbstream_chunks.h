// The chunks of a stream of the xbstream format, as it goes by. Hostile input.
//
// The format: chunks of "XBSTCK01", a byte of flags, a byte of type (P data, S data with holes, E end of file), the
// path with its length before it (4 bytes; all numbers little-endian); data then has its length and its offset in the
// file (8 bytes each), a CRC-32 (4) and the bytes. In Percona's tools S has the number of its holes (4) before the
// length and 8 bytes for each after the CRC, which counts them in: how many bytes are left out, and how many of the
// data follow that. In MariaDB's it is a new offset (8 bytes) alone; these also write R (rename; a second path
// follows), D (remove), and the flag 2 for data that replaces a file that was there. They do so when tables change
// while they run. A chunk of a type that is not known is left out where it has the flag 1; it has the form of P then.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stream/byte_stream.h"

namespace guestagent::mysql {

struct XbstreamChunk {
  struct Hole {
    std::uint32_t left_out = 0, bytes = 0;
  };
  enum class Type { data, holes, seek, end, rename, remove, unknown };
  Type type = Type::data;
  bool replaces = false;
  std::string path;  // without "./" before it
  std::string to;    // of a rename
  std::uint64_t size = 0, offset = 0;
  std::uint32_t crc = 0;           // of the list of holes and the data
  std::uint32_t crc_of_holes = 0;  // of that list alone
  std::vector<Hole> holes;

  bool has_data() const { return type == Type::data || type == Type::holes; }
};

// Not thread-safe.
class XbstreamChunks {
 public:
  enum class Maker { mariadb, percona };
  // What it throws comes out of see().
  class Handler {
   public:
    virtual ~Handler() = default;
    // All but the data is there. What is to be left out is not told.
    virtual void chunk(const XbstreamChunk& chunk) = 0;
    // The next of its data, `chunk.size` in all; never empty.
    virtual void data(const XbstreamChunk& chunk, Bytes bytes) = 0;
  };

  explicit XbstreamChunks(Maker maker) : maker_(maker) {}

  // The next bytes of the stream. A stream that is not of this format, or that the maker's own tool could read
  // differently, is not followed any further: see lost().
  void see(Bytes data, Handler& handler);
  bool lost() const { return lost_; }
  // Whether a chunk ended exactly here; where the last one did, in bytes from the beginning.
  bool at_boundary() const { return !lost_ && part_ == Part::head && held_.empty(); }
  std::uint64_t last_end() const { return last_end_; }

 private:
  enum class Part { head, path, seek, second_size, second_path, numbers, holes, data };
  std::size_t wanted() const;
  void take(std::string_view bytes, Handler& handler);
  void take_head(std::string_view bytes);
  void take_path(std::string_view bytes, Handler& handler);
  void take_numbers(std::string_view bytes, Handler& handler);
  void take_holes(std::string_view bytes, Handler& handler);
  void begin_data(Handler& handler);
  void announce(Handler& handler);
  void end();

  Maker maker_;
  bool lost_ = false;
  Part part_ = Part::head;
  std::string held_;  // of a part that has not come whole yet
  XbstreamChunk chunk_;
  std::uint32_t text_size_ = 0, holes_ = 0;
  std::uint64_t left_ = 0;
  std::uint64_t seen_ = 0, last_end_ = 0;
};

}  // namespace guestagent::mysql

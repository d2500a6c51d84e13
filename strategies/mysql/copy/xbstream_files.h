// Looks into a stream of the xbstream format as it goes by, keeps the few small files in it that tell of the copy
// itself, and tells of all the others.
//
// The format: chunks of "XBSTCK01", a byte of flags, a byte of type (P data, S data with holes, E end of file), the
// path with its length before it (4 bytes; all numbers little-endian); data then has its length and its offset in the
// file (8 bytes each), a CRC-32 (4) and the bytes. In Percona's tools S has the number of its holes (4) before the
// length and 8 bytes for each after the CRC. In MariaDB's it is a new offset (8 bytes) alone; these also write R
// (rename; a second path follows), D (remove), and the flag 2 for data that replaces a file that was there. They do so
// when tables change while they run.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stream/byte_stream.h"

namespace guestagent::mysql {

class XbstreamFiles {
 public:
  // Told of each chunk before anything behind its path has gone by; what it throws comes out of see().
  class Watcher {
   public:
    virtual ~Watcher() = default;
    virtual void path(std::string_view) {}
    virtual void data(std::string_view /*path*/, std::uint64_t /*offset*/, std::string_view /*bytes*/) {}
    virtual void end(std::string_view /*path*/) {}
    virtual void renamed(std::string_view /*from*/, std::string_view /*to*/) {}
    virtual void removed(std::string_view /*path*/) {}
  };
  enum class Maker { mariadb, percona };

  // `watcher`, if any, outlives it.
  explicit XbstreamFiles(std::vector<std::string_view> names, Maker maker = Maker::percona, Watcher* watcher = nullptr)
      : names_(std::move(names)), maker_(maker), watcher_(watcher) {}

  // The next bytes of the stream. A stream that is not of this format is not followed any further: see lost().
  void see(Bytes data);

  // The file of that name, once its end has gone by; nullopt when it has not, was too large to be one of these, or its
  // parts did not follow each other.
  std::optional<std::string> file(std::string_view name) const;
  bool lost() const { return lost_; }
  // The tool's option that has changed the files of the stream, as their names show: "compress", "encrypt"; "": none.
  std::string_view changed_by() const { return changed_by_; }
  // Whether a chunk ended exactly here.
  bool at_boundary() const { return !lost_ && part_ == Part::head && held_.empty(); }

 private:
  enum class Part { head, path, seek, second_size, second_path, numbers, holes, data };
  struct File {
    std::string text;
    bool whole = false, bad = false;
  };
  std::size_t wanted() const;
  void take(std::string_view bytes);
  void take_head(std::string_view bytes);
  void take_path(std::string_view bytes);
  void take_numbers(std::string_view bytes);
  void forget(std::string_view path);
  void end_of_data();

  const std::vector<std::string_view> names_;
  const Maker maker_;
  Watcher* const watcher_;
  std::map<std::string, File, std::less<>> files_;
  bool lost_ = false;
  std::string_view changed_by_;
  bool fresh_ = false;  // the data to come replaces what was there
  Part part_ = Part::head;
  std::string held_;  // of a part that has not come whole yet
  char type_ = 0;
  std::string path_;
  std::uint32_t path_size_ = 0;
  std::uint64_t left_ = 0, offset_ = 0, holes_ = 0;
  File* into_ = nullptr;
};

}  // namespace guestagent::mysql

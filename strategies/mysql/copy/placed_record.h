// What of a stream lies in a directory, so that who goes on after a crash fetches only the rest.
//
// A file beside the directory, of one line of text for each chunk and each piece. It says what was *written*, not what
// is on the disk: who goes on reads all of it back and holds it against the CRC-32 of each chunk, so that nothing has
// to be flushed for it, and neither a power cut nor a hand that was in the directory is believed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/held_dir.h"
#include "base/job_context.h"
#include "base/unique_fd.h"
#include "stream/piece_source.h"

namespace guestagent::mysql {

// What was found whole.
struct Placed {
  std::uint64_t pieces = 0;  // from the first on
  struct File {
    std::uint64_t size = 0;
    bool ended = false;
  };
  std::map<std::string, File> files;
};

// Not thread-safe.
class PlacedRecord {
 public:
  static fs::path path_of(const fs::path& dir);

  // A new one for `dir`, which is empty; `kind` without a digest: nothing is recorded, since nobody could go on with
  // it.
  PlacedRecord(const HeldDir& dir, const PieceSource::Kind& kind);
  // That of an earlier run: reads back what it says, and leaves in `dir` exactly what is whole (placed()), everything
  // else is removed. nullopt where there is none for this stream. Cancellable; throws Error.
  static std::optional<PlacedRecord> found(const HeldDir& dir, const PieceSource::Kind& kind, JobContext& job);
  // Whether found() would look into it: for a directory that is not open yet. Touches nothing.
  static bool is_for(const fs::path& dir, const PieceSource::Kind& kind);

  const Placed& placed() const { return placed_; }

  // All of a piece is in its place: `said` are the lines of its chunks, in order.
  void add(std::uint64_t piece, std::string_view said);
  // The directory is not what the record says any more, or is no longer wanted. Durable.
  void close();
  static void forget(const fs::path& dir);

  // Lines for add(): a path has no line break (check_copy_name).
  static std::string data_line(std::string_view path, std::uint64_t offset, std::uint64_t size, std::uint32_t crc);
  static std::string hole_line(std::string_view path, std::uint64_t to);  // the file goes on at `to`
  static std::string end_line(std::string_view path);
  static std::string remove_line(std::string_view path);
  static std::string rename_line(std::string_view from, std::string_view to);

 private:
  PlacedRecord() = default;

  fs::path path_;
  UniqueFd fd_;
  Placed placed_;
};

}  // namespace guestagent::mysql

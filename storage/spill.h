// Finished segments that wait on local disk because the store is slower than the source.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string_view>

#include "base/file.h"
#include "config/settings.h"
#include "stream/buffer.h"

namespace guestagent {

// Where the segments of that snapshot spill to: known from the settings and the id alone, so that whoever recovers a
// dead job can remove it with remove_tree().
fs::path spill_path(const SpillSettings& settings, std::string_view snapshot_id);

// A directory (mode 0700) of files, one a segment; made by the first save(), removed with all it has when the object
// dies. Thread-safe.
class Spill {
 public:
  Spill(const SpillSettings& settings, std::string_view snapshot_id);
  ~Spill();
  Spill(const Spill&) = delete;
  Spill& operator=(const Spill&) = delete;

  // False, and nothing written, when there is no room: max_bytes would be passed, or less than keep_free_bytes left on
  // the file system. Throws Error when the disk refuses; what was written of this segment is gone then. REQUIRES: one
  // call at a time, a number only once.
  bool save(std::uint64_t number, const Buffer& data, std::string_view sha256);

  // What save() was given, and its file is removed. Throws data_loss when the disk gives back something else. Once per
  // number.
  Buffer load(std::uint64_t number);

 private:
  struct Saved {
    std::uint64_t bytes = 0;
    std::string sha256;
  };
  fs::path file_of(std::uint64_t number) const;

  const SpillSettings settings_;
  const fs::path dir_;
  std::mutex mutex_;
  bool made_ = false;
  std::uint64_t bytes_ = 0;
  std::map<std::uint64_t, Saved> saved_;
};

}  // namespace guestagent

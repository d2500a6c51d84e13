#include "strategies/mysql/install/staged.h"

#include <sys/stat.h>

#include <chrono>
#include <string>
#include <system_error>

#include "base/held_dir.h"
#include "base/log.h"
#include "strategies/mysql/copy/placed_record.h"
#include "strategies/mysql/copy/ready_record.h"
#include "strategies/mysql/host/work_places.h"
#include "strategies/mysql/install/receive.h"

namespace guestagent::mysql {

fs::path staging_parent(const MysqlSettings& settings) {
  return settings.staging_dir.empty() ? work_dir(settings.data_dir) : fs::weakly_canonical(settings.staging_dir);
}

std::vector<StagedCopy> staged_copies(const MysqlSettings& settings) {
  std::vector<StagedCopy> out;
  std::error_code ec;
  // Whoever asks where there is no data is told elsewhere that it is not there.
  if (!fs::is_directory(settings.data_dir, ec)) return out;
  for (const fs::directory_entry& entry : fs::directory_iterator(staging_parent(settings), ec)) {
    const fs::path dir = entry.path();
    struct stat record {};
    if (!dir.filename().string().starts_with(kStagingPrefix) || !fs::is_directory(fs::symlink_status(dir, ec)))
      continue;
    StagedCopy copy;
    copy.ready = ::lstat(ready_record_path(dir).c_str(), &record) == 0;
    if (!copy.ready && ::lstat(PlacedRecord::path_of(dir).c_str(), &record) != 0) continue;
    copy.dir = dir;
    copy.bytes = tree_bytes(dir);
    copy.last_added = WallTime(std::chrono::seconds(record.st_mtime));
    out.push_back(std::move(copy));
  }
  return out;
}

void remove_staged(const StagedCopy& copy) {
  forget_staged(copy.dir);
  remove_tree(copy.dir);
  // The directory around it, where that is the agent's own.
  const fs::path around = copy.dir.parent_path();
  if (around.filename().string().ends_with(kHiddenDir)) remove_dir_if_empty(around);
}

std::vector<StagedCopy> old_staged(const MysqlSettings& settings, Millis keep, Clock& clock) {
  std::vector<StagedCopy> out = staged_copies(settings);
  std::erase_if(out, [&](const StagedCopy& copy) { return copy.last_added + keep > clock.now(); });
  return out;
}

}  // namespace guestagent::mysql

#include "strategies/mysql/host/work_places.h"

#include <string>

#include "base/error.h"
#include "base/held_dir.h"
#include "base/secret.h"
#include "strategies/mysql/host/tree_move.h"

namespace guestagent::mysql {

fs::path work_dir(const fs::path& data_dir) {
  const fs::path real = fs::canonical(data_dir);
  if (is_mount_point(real)) return real / kHiddenDir;
  return real.parent_path() / (real.filename().string() + ".guestagent");
}

void make_work_dir(const fs::path& dir) {
  with_context("making the agent's directory beside the data", [&] { make_own_dir(dir, 0711); });
}

fs::path new_work_path(const fs::path& parent, std::string_view prefix) {
  return parent / (std::string(prefix) + "-" + random_hex(4));
}

}  // namespace guestagent::mysql

#include "strategies/mysql/host/set_mark.h"

#include "base/error.h"
#include "base/id.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kMaxMark = 200;

fs::path mark_in(const fs::path& state_dir) {
  return state_dir / "set";
}

}  // namespace

std::string set_of(const fs::path& state_dir) {
  try {
    return read_file(mark_in(state_dir), kMaxMark);
  } catch (const Error& e) {
    if (e.code() != Code::not_found) throw;
    return "";
  }
}

std::string set_of_source(const fs::path& state_dir) {
  if (std::string known = set_of(state_dir); !known.empty()) return known;
  const std::string made = new_uuid();
  write_file_atomic(mark_in(state_dir), made, 0600);
  return made;
}

void keep_set(const fs::path& state_dir, const std::string& id) {
  if (id == set_of(state_dir)) return;
  if (id.empty()) {
    remove_tree(mark_in(state_dir));
  } else {
    write_file_atomic(mark_in(state_dir), id, 0600);
  }
}

}  // namespace guestagent::mysql

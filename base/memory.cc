#include "base/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>

namespace guestagent {
namespace {

constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();

std::uint64_t limit_in(const fs::path& file) {
  std::uint64_t limit = 0;
  return std::ifstream(file) >> limit && limit > 0 ? limit : kNoLimit;
}

std::uint64_t lowest_limit(const fs::path& root, const fs::path& group, const char* file) {
  std::uint64_t lowest = limit_in(root / file);
  fs::path dir = root;
  for (const fs::path& part : group.relative_path()) {
    dir /= part;
    lowest = std::min(lowest, limit_in(dir / file));
  }
  return lowest;
}

}  // namespace

std::uint64_t available_memory() {
  std::uint64_t available = 0;
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("MemAvailable:")) continue;
    std::istringstream(line.substr(13)) >> available;
    available *= 1024;
  }
  std::ostringstream groups;
  groups << std::ifstream("/proc/self/cgroup").rdbuf();
  return std::min(available, group_memory_limit(groups.str(), "/sys/fs/cgroup"));
}

std::uint64_t group_memory_limit(std::string_view groups, const fs::path& mount) {
  std::uint64_t lowest = kNoLimit;
  std::istringstream lines{std::string(groups)};
  for (std::string line; std::getline(lines, line);) {
    // number:controllers:path
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    if (controllers.empty()) {
      lowest = std::min(lowest, lowest_limit(mount, group, "memory.max"));
    } else if (("," + controllers + ",").find(",memory,") != std::string::npos) {
      lowest = std::min(lowest, lowest_limit(mount / "memory", group, "memory.limit_in_bytes"));
    }
  }
  return lowest;
}

}  // namespace guestagent

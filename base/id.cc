#include "base/id.h"

#include <algorithm>

#include "base/secret.h"

namespace guestagent {

bool valid_id(std::string_view id) {
  const auto alphanumeric = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
  };
  return !id.empty() && id.size() <= 64 && alphanumeric(id.front()) &&
         std::all_of(id.begin(), id.end(), [&](char c) { return alphanumeric(c) || c == '.' || c == '_' || c == '-'; });
}

std::string new_id(const Clock& clock) {
  std::string time = format_utc(clock.now());
  std::erase_if(time, [](char c) { return c == '-' || c == ':'; });
  return time + '-' + random_hex(4);
}

std::string new_task_id() {
  return "t" + random_hex(8);
}

std::string new_uuid() {
  const std::string hex = random_hex(16);
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-4" + hex.substr(13, 3) + "-a" + hex.substr(17, 3) + "-" +
         hex.substr(20);
}

}  // namespace guestagent

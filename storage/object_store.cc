#include "storage/object_store.h"

#include <algorithm>

#include "base/log.h"
#include "base/text.h"

namespace guestagent {
namespace {

bool allowed(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

std::string_view why_not(std::string_view name) {
  if (name.empty()) return "empty";
  if (name.size() > kMaxObjectName) return "too long";
  while (true) {
    const auto slash = name.find('/');
    const auto part = name.substr(0, slash);
    if (part.empty()) return "an empty component";
    if (part.size() > kMaxObjectNameComponent) return "a component that is too long";
    if (part == "." || part == "..") return "a component . or ..";
    if (!std::ranges::all_of(part, allowed)) return "a character outside of [A-Za-z0-9._/-]";
    if (slash == std::string_view::npos) return {};
    name.remove_prefix(slash + 1);
  }
}

}  // namespace

Buffer ObjectStore::get_promised(std::string_view name, std::uint64_t max_size,
                                 const std::function<void(const Buffer&)>& right, std::stop_token stop) {
  Buffer body = get_unverified(name, max_size, stop);
  try {
    right(body);
    return body;
  } catch (const Error& e) {
    if (e.code() != Code::data_loss) throw;
    log_warning("an object came spoiled and is fetched once more", {{"object", std::string(name)}, {"why", e.what()}});
  }
  body = get(name, max_size, stop);
  right(body);
  return body;
}

void check_object_name(std::string_view name) {
  const auto why = why_not(name);
  if (why.empty()) return;
  throw StoreError(Code::invalid_argument, "object name \"" + printable(name) + "\": " + std::string(why), {}, false);
}

bool valid_object_name(std::string_view name) {
  return why_not(name).empty();
}

}  // namespace guestagent

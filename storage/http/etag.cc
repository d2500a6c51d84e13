#include "storage/http/etag.h"

#include <algorithm>

namespace guestagent {

std::string plain_etag(std::string_view header) {
  if (header.starts_with("W/\"") || header.starts_with("w/\"")) header.remove_prefix(2);
  if (header.size() >= 2 && header.front() == '"' && header.back() == '"') header = header.substr(1, header.size() - 2);
  std::string out(header);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::optional<std::string> etag_md5(const HttpResponse& response) {
  std::string tag = plain_etag(response.header("etag").value_or(""));
  const bool hex = tag.size() == 32 &&
                   std::ranges::all_of(tag, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  return hex ? std::optional(std::move(tag)) : std::nullopt;
}

}  // namespace guestagent

#include "storage/http/object_size.h"

#include <charconv>

#include "storage/http/http_errors.h"

namespace guestagent {
namespace {

// For servers that send all of it: no object of ours is larger.
constexpr std::uint64_t kMostSent = std::uint64_t{65} << 20;

// "bytes 0-0/1234", "bytes */0"
std::optional<std::uint64_t> size_in_range(std::string_view range) {
  const auto slash = range.rfind('/');
  if (!range.starts_with("bytes ") || slash == std::string_view::npos) return std::nullopt;
  range.remove_prefix(slash + 1);
  std::uint64_t size = 0;
  const auto [end, error] = std::from_chars(range.data(), range.data() + range.size(), size);
  if (error != std::errc() || end != range.data() + range.size()) return std::nullopt;
  return size;
}

}  // namespace

HttpRequest size_request(const HttpRequest& head) {
  HttpRequest request{.what = head.what, .method = "GET", .url = head.url};
  request.headers = {{"Range", "bytes=0-0"}};
  request.max_answer = kMostSent;
  return request;
}

std::optional<std::uint64_t> size_told(const HttpRequest& request, const HttpResponse& response, Clock& clock) {
  if (response.status == 404) return std::nullopt;
  if (response.status == 200) return response.body.size();
  if (response.status == 206 || response.status == 416) {
    if (const auto size = size_in_range(response.header("content-range").value_or(""))) return *size;
    throw answer_error(request, Code::unavailable, "it does not tell the object's size", "no size");
  }
  throw status_error(request, response, clock);
}

}  // namespace guestagent

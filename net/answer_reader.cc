#include "net/answer_reader.h"

#include <algorithm>
#include <charconv>
#include <ctime>

namespace guestagent {
namespace {

constexpr std::size_t kMaxHeaderBytes = 64 << 10;
constexpr std::size_t kMaxHeaders = 256;
constexpr std::uint64_t kMaxErrorBody = 64 << 10;

std::string lower_name(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r' || text.back() == '\n'))
    text.remove_suffix(1);
  return text;
}

// "HTTP/1.1 200 OK": 200; 0 for anything else.
int status_of(std::string_view line) {
  const auto space = line.find(' ');
  if (space == std::string_view::npos || line.size() < space + 4) return 0;
  int status = 0;
  const auto [end, error] = std::from_chars(line.data() + space + 1, line.data() + space + 4, status);
  return error == std::errc() && end == line.data() + space + 4 && status >= 100 ? status : 0;
}

}  // namespace

std::optional<std::string_view> HttpResponse::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> HttpResponse::length() const {
  const auto text = header("content-length");
  std::uint64_t length = 0;
  if (!text) return std::nullopt;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), length);
  if (error != std::errc() || end != text->data() + text->size()) return std::nullopt;
  return length;
}

bool AnswerReader::header_line(std::string_view line) {
  header_bytes_ += line.size();
  if (header_bytes_ > kMaxHeaderBytes || response_.headers.size() >= kMaxHeaders) {
    garbage_ = "endless headers";
    return false;
  }
  line = trim(line);
  if (complete_headers_ && no_leave_ && response_.status == 417 && line.starts_with("HTTP/")) {
    // The request was sent once more without the question that was refused.
    response_.body = {};
    complete_headers_ = enough_ = false;
  }
  if (complete_headers_) return true;  // a trailer
  if (line.starts_with("HTTP/")) {
    response_.headers.clear();
    response_.status = status_of(line);
    if (response_.status == 0) garbage_ = "a broken status line";
    if (response_.status == 100) saw_continue_ = true;
    if (response_.status == 417) no_leave_ = true;
    return response_.status != 0;
  }
  if (line.empty()) {
    complete_headers_ = response_.status >= 200;
    return true;
  }
  const auto colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) {
    garbage_ = "a header without a name";
    return false;
  }
  response_.headers.emplace_back(lower_name(line.substr(0, colon)), trim(line.substr(colon + 1)));
  return true;
}

bool AnswerReader::body_bytes(Bytes data) {
  if (!response_.ok()) {
    const auto room = kMaxErrorBody - std::min(kMaxErrorBody, response_.body.size());
    response_.body.append(data.first(std::min<std::uint64_t>(room, data.size())));
    enough_ = data.size() > room;
    return !enough_;
  }
  if (response_.body.size() + data.size() > max_body_ || response_.length().value_or(0) > max_body_) {
    too_large_ = true;
    return false;
  }
  response_.body.append(data);
  return true;
}

bool AnswerReader::passed_on(Bytes data, bool more) {
  passed_on_ += data.size();
  enough_ = !more;
  return more;
}

std::optional<WallTime> parse_http_date(std::string_view text) {
  if (text.empty() || text.size() > 64) return std::nullopt;
  const std::string copy(text);
  // RFC 7231: the usual form, that of RFC 850, that of asctime.
  for (const char* form : {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"}) {
    std::tm parts{};
    const char* end = ::strptime(copy.c_str(), form, &parts);
    if (end == nullptr || *end != '\0') continue;
    const std::time_t time = ::timegm(&parts);
    // A WallTime counts nanoseconds and ends in 2262.
    if (time >= 0 && time <= std::chrono::floor<std::chrono::seconds>(WallTime::max()).time_since_epoch().count())
      return std::chrono::system_clock::from_time_t(time);
  }
  return std::nullopt;
}

}  // namespace guestagent

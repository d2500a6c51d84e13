#include "storage/http/http_errors.h"

#include <algorithm>
#include <charconv>

#include "base/text.h"
#include "net/url.h"

namespace guestagent {
namespace {

struct StatusRow {
  int status;
  const char* words;
  Code code;
  bool retryable;
  const char* hint;
};

constexpr const char* kLater = "the store is overloaded or in trouble; try again later";
constexpr StatusRow kRows[] = {
    {301, "Moved Permanently", Code::failed_precondition, false,
     "redirects are not followed: configure the address it moved to"},
    {302, "Found", Code::failed_precondition, false, "redirects are not followed: configure the address it moved to"},
    {307, "Temporary Redirect", Code::failed_precondition, false,
     "redirects are not followed: configure the address it moved to"},
    {308, "Permanent Redirect", Code::failed_precondition, false,
     "redirects are not followed: configure the address it moved to"},
    {400, "Bad Request", Code::failed_precondition, false, ""},
    {401, "Unauthorized", Code::permission_denied, false, "check the user, the key and the project of the store"},
    {403, "Forbidden", Code::permission_denied, false,
     "the user of the store may not do this: check its role and the container's access rules"},
    {404, "Not Found", Code::not_found, false, ""},
    {405, "Method Not Allowed", Code::failed_precondition, false, "check that the configured address is a store's"},
    {408, "Request Timeout", Code::unavailable, true, kLater},
    {409, "Conflict", Code::failed_precondition, true, ""},
    {411, "Length Required", Code::failed_precondition, false, ""},
    {412, "Precondition Failed", Code::failed_precondition, false, ""},
    {413, "Request Entity Too Large", Code::resource_exhausted, false,
     "the store's limit of sizes or quota is reached"},
    {422, "Unprocessable Entity", Code::data_loss, true,
     "what arrived is not what was sent: suspect the network or the store's memory"},
    {429, "Too Many Requests", Code::unavailable, true,
     "the store limits the rate of requests: lower snapshot.transfers"},
    {498, "Rate Limited", Code::unavailable, true, "the store limits the rate of requests: lower snapshot.transfers"},
    {499, "Client Disconnect", Code::unavailable, true, ""},
    {500, "Internal Server Error", Code::unavailable, true, kLater},
    {501, "Not Implemented", Code::unavailable, true, "check that the configured address is a store's"},
    {502, "Bad Gateway", Code::unavailable, true, kLater},
    {503, "Service Unavailable", Code::unavailable, true, kLater},
    {504, "Gateway Timeout", Code::unavailable, true, kLater},
    {507, "Insufficient Storage", Code::resource_exhausted, true, "free space on the store"},
};

StatusRow row_of(int status) {
  for (const StatusRow& row : kRows) {
    if (row.status == status) return row;
  }
  if (status >= 500) return {status, "", Code::unavailable, true, kLater};
  if (status < 300) return {status, "", Code::unavailable, true, ""};
  return {status, "", Code::failed_precondition, false, ""};
}

std::optional<Seconds> retry_after(const HttpResponse& response, Clock& clock) {
  const auto text = response.header("retry-after");
  if (!text) return std::nullopt;
  std::uint32_t seconds = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
  if (error == std::errc() && end == text->data() + text->size()) return Seconds(seconds);
  const auto date = parse_http_date(*text);
  if (!date || *date <= clock.now()) return std::nullopt;
  return std::chrono::ceil<Seconds>(*date - clock.now());
}

// The first words of an answer for people: an HTML page has none.
std::string first_words(const HttpResponse& response) {
  if (response.body.empty()) return {};
  const auto chunk = response.body.chunks().front();
  std::string text(reinterpret_cast<const char*>(chunk.data()), std::min<std::size_t>(chunk.size(), 400));
  if (text.find('<') != std::string::npos) return {};
  std::ranges::replace_if(
      text, [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  while (text.ends_with(' ')) text.pop_back();
  return text.empty() ? text : ": " + printable(text, 160);
}

}  // namespace

std::string status_text(int status) {
  const std::string words = row_of(status).words;
  return std::to_string(status) + (words.empty() ? "" : " " + words);
}

std::string server_of(std::string_view url) {
  const auto parsed = parse_url(url.substr(0, url.find('?')));
  return parsed ? parsed->origin() : "the server";
}

StoreError status_error(const HttpRequest& request, const HttpResponse& response, Clock& clock, bool quote) {
  const StatusRow row = row_of(response.status);
  std::string hint = row.hint;
  // Both are told to who wanted to write where only reading is allowed.
  if (response.status == 405 && (request.method == "PUT" || request.method == "DELETE"))
    hint = "either the store takes no writes now (read-only), or the configured address is no store's";
  std::string why = response.ok() ? "answered with the unexpected status " : "answered ";
  why += status_text(response.status) + (quote ? first_words(response) : "");
  if (const auto location = response.header("location"); location && response.status >= 300 && response.status < 400)
    why += " to " + printable(location->substr(0, location->find_first_of("?#")), 200);
  return StoreError(row.code, request.what + ": " + server_of(request.url) + ": " + why, hint, row.retryable,
                    row.retryable ? retry_after(response, clock) : std::nullopt, std::to_string(response.status));
}

StoreError answer_error(const HttpRequest& request, Code code, const std::string& why, std::string brief,
                        bool retryable) {
  return StoreError(code, request.what + ": " + server_of(request.url) + ": " + why, {}, retryable, std::nullopt,
                    std::move(brief));
}

}  // namespace guestagent

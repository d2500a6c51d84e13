#include "controller/request_mark.h"

#include <algorithm>

#include "base/json.h"
#include "base/text.h"
#include "stream/byte_stream.h"
#include "stream/digest.h"

namespace guestagent::controller {
namespace {

constexpr std::size_t kLongestKey = 255;

void write_sorted(JsonWriter& out, const JsonValue& value) {
  if (value.IsObject()) {
    std::vector<std::pair<std::string, const JsonValue*>> members;
    for (auto member = value.MemberBegin(); member != value.MemberEnd(); ++member) {
      members.emplace_back(std::string(member->name.GetString(), member->name.GetStringLength()), &member->value);
    }
    std::sort(members.begin(), members.end());
    out.begin_object();
    for (const auto& [name, inner] : members) write_sorted(out.key(name), *inner);
    out.end_object();
  } else if (value.IsArray()) {
    out.begin_array();
    for (auto item = value.Begin(); item != value.End(); ++item) write_sorted(out, *item);
    out.end_array();
  } else {
    out.raw(to_json(value));
  }
}

std::string body_of(const ReceivedRequest& request) {
  if (request.body.empty()) return {};
  try {
    const JsonDocument document = parse_json(request.body, "body");
    JsonWriter out;
    write_sorted(out, document);
    return out.text();
  } catch (const Error&) {
    return request.body;  // its own call says what is wrong with it
  }
}

void append_part(std::string& out, std::string_view part) {
  out += std::to_string(part.size()) + ":";
  out += part;
}

}  // namespace

RequestMark mark_of(const ReceivedRequest& request) {
  const std::string& key = request.idempotency_key;
  if (key.empty()) return {};
  if (key.size() > kLongestKey || std::any_of(key.begin(), key.end(), [](char c) { return c < ' ' || c > '~'; })) {
    throw Error(Code::invalid_argument, "reading Idempotency-Key: it must be 1 to 255 printable ASCII characters");
  }
  std::string text;
  append_part(text, request.method);
  append_part(text, request.path);
  auto query = request.query;
  std::sort(query.begin(), query.end());
  for (const auto& [name, value] : query) {
    append_part(text, name);
    append_part(text, value);
  }
  append_part(text, "");
  append_part(text, body_of(request));
  return {key, sha256_hex(as_bytes(text))};
}

}  // namespace guestagent::controller

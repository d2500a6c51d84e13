// Any bytes are JSON that survives a round trip, or an Error; and a reader of any JSON answers or throws an
// Error.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/json.h"
#include "base/text.h"

using guestagent::Error;
using guestagent::JsonDocument;
using guestagent::JsonReader;
using guestagent::JsonValue;

namespace {

template <typename F>
void may_throw(F read) {
  try {
    read();
  } catch (const Error&) {
  }
}

void read_everything(const JsonValue& value, const std::string& path) {
  may_throw([&] {
    const JsonReader in(value, path);
    may_throw([&] { in.allow_only({"snapshot", "async", "job_id"}); });
    for (const std::string_view key : {"a", "snapshot", "jsonrpc", "id", "params", "", "segments"}) {
      in.has(key);
      may_throw([&] { in.opt_string(key); });
      may_throw([&] { in.string(key); });
      may_throw([&] { in.uint(key, 1, 65535); });
      may_throw([&] { in.opt_uint(key); });
      may_throw([&] { in.opt_number(key); });
      may_throw([&] { in.boolean(key); });
      may_throw([&] { in.strings(key); });
      may_throw([&] {
        if (const JsonValue* list = in.array(key)) {
          for (auto item = list->Begin(); item != list->End(); ++item) read_everything(*item, path + "[]");
        }
      });
      may_throw([&] { read_everything(in.object(key).value(), path + "." + std::string(key)); });
    }
  });
}

// Such a number may change in its last binary digit.
bool has_fraction(const JsonValue& value) {
  if (value.IsArray()) return std::any_of(value.Begin(), value.End(), has_fraction);
  if (value.IsObject())
    return std::any_of(value.MemberBegin(), value.MemberEnd(),
                       [](const auto& member) { return has_fraction(member.value); });
  return value.IsDouble();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const JsonDocument document = guestagent::parse_json(text, "input");
    const std::string written = guestagent::to_json(document);
    if (!guestagent::valid_utf8(written)) std::abort();
    const std::string again = guestagent::to_json(guestagent::parse_json(written, "written"));
    if (again != written && !has_fraction(document)) std::abort();
    read_everything(document, "input");
  } catch (const Error& e) {
    if (e.code() != guestagent::Code::invalid_argument) std::abort();
    if (!guestagent::valid_utf8(e.what())) std::abort();
  }
  return 0;
}

// RapidJSON for hostile input: bounded depth, path-aware typed reading, strict or lenient.
#pragma once

// A failed assertion of the library is an error of ours (INTERNAL), never an abort. Defined before its first header,
// the same in every file: RapidJSON is included through this header only.
namespace guestagent {
[[noreturn]] void json_assertion_failed(const char* what);
}
#define RAPIDJSON_ASSERT(x) (static_cast<bool>(x) ? static_cast<void>(0) : ::guestagent::json_assertion_failed(#x))

#include <rapidjson/document.h>
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace guestagent {

using JsonValue = rapidjson::Value;
using JsonDocument = rapidjson::Document;

// Parses UTF-8 text of at most 64 levels; duplicate keys, NaN, comments and trailing text are errors. Throws
// Error(invalid_argument, "`what`: at byte N: why").
JsonDocument parse_json(std::string_view text, std::string_view what);

std::string to_json(const JsonValue& value);

// Reads the members of one JSON object with their types checked. Errors name the whole path:
// "params.slave_config.server_id: must be a whole number from 1 to 4294967295". REQUIRES: the value outlives the
// reader.
class JsonReader {
 public:
  // Throws Error(`code`) unless `value` is an object.
  JsonReader(const JsonValue& value, std::string path, Code code = Code::invalid_argument);

  bool has(std::string_view key) const;  // present and not null
  // The required ones throw when the key is absent or null; the optional ones answer nullopt then. Both throw on a
  // wrong type.
  std::string string(std::string_view key) const;
  std::optional<std::string> opt_string(std::string_view key) const;
  std::uint64_t uint(std::string_view key, std::uint64_t min = 0, std::uint64_t max = UINT64_MAX) const;
  std::optional<std::uint64_t> opt_uint(std::string_view key, std::uint64_t min = 0,
                                        std::uint64_t max = UINT64_MAX) const;
  std::optional<double> opt_number(std::string_view key) const;  // finite
  bool boolean(std::string_view key) const;
  std::optional<bool> opt_boolean(std::string_view key) const;
  JsonReader object(std::string_view key) const;
  std::optional<JsonReader> opt_object(std::string_view key) const;
  std::vector<std::string> strings(std::string_view key) const;  // an array of strings; absent: empty
  const JsonValue* array(std::string_view key) const;            // nullptr when absent; throws unless an array
  const JsonValue& value() const { return *value_; }
  const std::string& path() const { return path_; }

  // Throws naming the first member that is not in `known`: for params, which are strict.
  void allow_only(std::initializer_list<std::string_view> known) const;
  // An error of this reader's code about one member.
  Error error(std::string_view key, std::string_view why) const;

 private:
  const JsonValue* find(std::string_view key) const;
  const JsonValue* value_;
  std::string path_;
  Code code_;
};

// Writes JSON text in order, compact. key() then a value; begin_/end_ pairs are the caller's to match.
class JsonWriter {
 public:
  JsonWriter& begin_object();
  JsonWriter& end_object();
  JsonWriter& begin_array();
  JsonWriter& end_array();
  JsonWriter& key(std::string_view name);
  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(const std::string& text) { return value(std::string_view(text)); }
  JsonWriter& value(std::uint64_t number);
  JsonWriter& value(std::int64_t number);
  JsonWriter& value(int number) { return value(static_cast<std::int64_t>(number)); }
  JsonWriter& value(unsigned number) { return value(static_cast<std::uint64_t>(number)); }
  JsonWriter& value(double number);  // with at most three decimals
  JsonWriter& value(bool flag);
  JsonWriter& null();
  JsonWriter& raw(std::string_view json);  // already JSON
  // key and value in one
  template <typename T>
  JsonWriter& member(std::string_view name, const T& v) {
    return key(name).value(v);
  }
  JsonWriter& member_or_null(std::string_view name, const std::optional<std::string>& v);
  JsonWriter& member_or_null(std::string_view name, const std::optional<std::uint64_t>& v);
  std::string text() const { return std::string(buffer_.GetString(), buffer_.GetSize()); }

 private:
  rapidjson::StringBuffer buffer_;
  rapidjson::Writer<rapidjson::StringBuffer> writer_{buffer_};
};

}  // namespace guestagent

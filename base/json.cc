#include "base/json.h"

#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <cmath>
#include <unordered_set>

#include "base/text.h"

namespace guestagent {

void json_assertion_failed(const char* what) {
  throw Error(Code::internal, std::string("using JSON: the assertion ") + what + " does not hold");
}

namespace {

constexpr std::size_t kMaxDepth = 64;
// Not kParseFullPrecisionFlag: with it the library shifts by an undefined count where a number is a zero with an
// exponent. Without it the last binary digit of a fraction may be another one, and ours have three decimals.
constexpr unsigned kParseFlags = rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag;

// Looks at the events of the parser and keeps nothing but the keys of the open objects.
class Check : public rapidjson::BaseReaderHandler<rapidjson::UTF8<>, Check> {
 public:
  bool StartObject() { return open(); }
  bool StartArray() { return open(); }
  bool EndObject(rapidjson::SizeType) { return close(); }
  bool EndArray(rapidjson::SizeType) { return close(); }
  bool String(const char* text, rapidjson::SizeType length, bool) {
    // The parser lets a low surrogate that stands alone pass.
    if (valid_utf8({text, length})) return true;
    why_ = "a string that is not Unicode";
    return false;
  }
  bool Key(const char* text, rapidjson::SizeType length, bool copy) {
    if (!String(text, length, copy)) return false;
    if (levels_.back().emplace(text, length).second) return true;
    why_ = "the key \"" + printable({text, length}) + "\" stands there twice";
    return false;
  }
  const std::string& why() const { return why_; }

 private:
  bool open() {
    if (levels_.size() == kMaxDepth) {
      why_ = "nested deeper than " + std::to_string(kMaxDepth) + " levels";
      return false;
    }
    levels_.emplace_back();
    return true;
  }
  bool close() {
    levels_.pop_back();
    return true;
  }
  std::vector<std::unordered_set<std::string>> levels_;
  std::string why_;
};

Error bad_json(std::string_view what, std::size_t at, const std::string& why) {
  return Error(Code::invalid_argument, std::string(what) + ": at byte " + std::to_string(at) + ": " + why);
}

std::string whole_number_range(std::uint64_t min, std::uint64_t max) {
  if (max == UINT64_MAX)
    return min == 0 ? "must be a whole number" : "must be a whole number of at least " + std::to_string(min);
  return "must be a whole number from " + std::to_string(min) + " to " + std::to_string(max);
}

}  // namespace

JsonDocument parse_json(std::string_view text, std::string_view what) {
  // To the parser a zero byte is the end; to us it is no JSON.
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos)
    throw bad_json(what, zero, "a zero byte");
  if (text.empty()) throw bad_json(what, 0, "it is empty");

  Check check;
  rapidjson::MemoryStream looked_at(text.data(), text.size());
  rapidjson::Reader reader;
  const rapidjson::ParseResult result = reader.Parse<kParseFlags>(looked_at, check);
  if (result.IsError()) {
    throw bad_json(what, result.Offset(),
                   check.why().empty() ? rapidjson::GetParseError_En(result.Code()) : check.why());
  }

  JsonDocument document;
  rapidjson::MemoryStream in(text.data(), text.size());
  document.ParseStream<kParseFlags>(in);
  if (document.HasParseError()) {
    throw bad_json(what, document.GetErrorOffset(), rapidjson::GetParseError_En(document.GetParseError()));
  }
  return document;
}

std::string to_json(const JsonValue& value) {
  rapidjson::StringBuffer buffer;
  rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
  value.Accept(writer);
  return std::string(buffer.GetString(), buffer.GetSize());
}

JsonReader::JsonReader(const JsonValue& value, std::string path, Code code)
    : value_(&value), path_(std::move(path)), code_(code) {
  if (!value.IsObject()) throw Error(code_, path_ + ": must be an object");
}

const JsonValue* JsonReader::find(std::string_view key) const {
  for (auto member = value_->MemberBegin(); member != value_->MemberEnd(); ++member) {
    if (std::string_view(member->name.GetString(), member->name.GetStringLength()) == key) {
      return member->value.IsNull() ? nullptr : &member->value;
    }
  }
  return nullptr;
}

Error JsonReader::error(std::string_view key, std::string_view why) const {
  return Error(code_, path_ + "." + std::string(key) + ": " + std::string(why));
}

bool JsonReader::has(std::string_view key) const {
  return find(key) != nullptr;
}

std::optional<std::string> JsonReader::opt_string(std::string_view key) const {
  const JsonValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->IsString()) throw error(key, "must be a string");
  return std::string(value->GetString(), value->GetStringLength());
}

std::string JsonReader::string(std::string_view key) const {
  auto value = opt_string(key);
  if (!value) throw error(key, "required");
  return std::move(*value);
}

std::optional<std::uint64_t> JsonReader::opt_uint(std::string_view key, std::uint64_t min, std::uint64_t max) const {
  const JsonValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->IsUint64() || value->GetUint64() < min || value->GetUint64() > max)
    throw error(key, whole_number_range(min, max));
  return value->GetUint64();
}

std::uint64_t JsonReader::uint(std::string_view key, std::uint64_t min, std::uint64_t max) const {
  const auto value = opt_uint(key, min, max);
  if (!value) throw error(key, "required");
  return *value;
}

std::optional<double> JsonReader::opt_number(std::string_view key) const {
  const JsonValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->IsNumber() || !std::isfinite(value->GetDouble())) throw error(key, "must be a number");
  return value->GetDouble();
}

std::optional<bool> JsonReader::opt_boolean(std::string_view key) const {
  const JsonValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->IsBool()) throw error(key, "must be true or false");
  return value->GetBool();
}

bool JsonReader::boolean(std::string_view key) const {
  const auto value = opt_boolean(key);
  if (!value) throw error(key, "required");
  return *value;
}

std::optional<JsonReader> JsonReader::opt_object(std::string_view key) const {
  const JsonValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  return JsonReader(*value, path_ + "." + std::string(key), code_);
}

JsonReader JsonReader::object(std::string_view key) const {
  const auto reader = opt_object(key);
  if (!reader) throw error(key, "required");
  return *reader;
}

const JsonValue* JsonReader::array(std::string_view key) const {
  const JsonValue* value = find(key);
  if (value != nullptr && !value->IsArray()) throw error(key, "must be an array");
  return value;
}

std::vector<std::string> JsonReader::strings(std::string_view key) const {
  std::vector<std::string> out;
  const JsonValue* list = array(key);
  if (list == nullptr) return out;
  for (auto item = list->Begin(); item != list->End(); ++item) {
    if (!item->IsString()) {
      throw error(std::string(key) + "[" + std::to_string(item - list->Begin()) + "]", "must be a string");
    }
    out.emplace_back(item->GetString(), item->GetStringLength());
  }
  return out;
}

void JsonReader::allow_only(std::initializer_list<std::string_view> known) const {
  const std::vector<std::string_view> names(known);
  for (auto member = value_->MemberBegin(); member != value_->MemberEnd(); ++member) {
    const std::string_view name(member->name.GetString(), member->name.GetStringLength());
    bool found = false;
    for (const std::string_view candidate : names) found = found || candidate == name;
    if (found) continue;
    const std::string_view near = nearest(name, names);
    std::string hint = near.empty() ? "" : "did you mean \"" + std::string(near) + "\"? ";
    hint += names.empty() ? "it takes none" : "known keys: " + join(names);
    throw Error(code_, path_ + "." + printable(name) + ": unknown key", hint);
  }
}

JsonWriter& JsonWriter::begin_object() {
  return writer_.StartObject(), *this;
}
JsonWriter& JsonWriter::end_object() {
  return writer_.EndObject(), *this;
}
JsonWriter& JsonWriter::begin_array() {
  return writer_.StartArray(), *this;
}
JsonWriter& JsonWriter::end_array() {
  return writer_.EndArray(), *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  // An empty view may have no address, which the writer refuses.
  writer_.Key(name.empty() ? "" : name.data(), static_cast<rapidjson::SizeType>(name.size()));
  return *this;
}

JsonWriter& JsonWriter::value(std::string_view text) {
  if (valid_utf8(text)) {
    writer_.String(text.empty() ? "" : text.data(), static_cast<rapidjson::SizeType>(text.size()));
  } else {
    const std::string mended = to_utf8(text);
    writer_.String(mended.data(), static_cast<rapidjson::SizeType>(mended.size()));
  }
  return *this;
}

JsonWriter& JsonWriter::value(std::uint64_t number) {
  return writer_.Uint64(number), *this;
}
JsonWriter& JsonWriter::value(std::int64_t number) {
  return writer_.Int64(number), *this;
}
JsonWriter& JsonWriter::value(bool flag) {
  return writer_.Bool(flag), *this;
}
JsonWriter& JsonWriter::null() {
  return writer_.Null(), *this;
}

JsonWriter& JsonWriter::value(double number) {
  if (!std::isfinite(number)) return null();  // JSON has no word for it
  writer_.Double(std::abs(number) < 1e15 ? std::round(number * 1000) / 1000 : number);
  return *this;
}

JsonWriter& JsonWriter::raw(std::string_view json) {
  writer_.RawValue(json.data(), json.size(), rapidjson::kObjectType);
  return *this;
}

JsonWriter& JsonWriter::member_or_null(std::string_view name, const std::optional<std::string>& v) {
  key(name);
  return v ? value(*v) : null();
}

JsonWriter& JsonWriter::member_or_null(std::string_view name, const std::optional<std::uint64_t>& v) {
  key(name);
  return v ? value(*v) : null();
}

}  // namespace guestagent

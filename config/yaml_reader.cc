#include <algorithm>

#include "base/text.h"
#include "config/units.h"
#include "config/yaml.h"

namespace guestagent {
namespace {

std::string in_quotes(std::string_view text) {
  return "\"" + printable(text) + "\"";
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}
constexpr std::string_view kOneLine = "must be one line without control characters";

}  // namespace

YamlReader::YamlReader(const YamlNode* node, std::string path, unsigned line, YamlReport& report)
    : node_(node), path_(std::move(path)), line_(line), report_(report) {}

std::string YamlReader::full(std::string_view key) const {
  return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
}

const YamlNode* YamlReader::find(std::string_view key) const {
  if (node_ == nullptr) return nullptr;
  for (const auto& [name, value] : node_->members) {
    if (name == key) return &value;
  }
  return nullptr;
}

const YamlNode* YamlReader::ask(std::string_view key) {
  known_.emplace_back(key);
  report_.asked(full(key));
  const YamlNode* node = find(key);
  return node != nullptr && node->kind != YamlNode::Kind::null ? node : nullptr;
}

bool YamlReader::has(std::string_view key) const {
  const YamlNode* node = find(key);
  if (node == nullptr || node->kind == YamlNode::Kind::null) return false;
  return node->kind != YamlNode::Kind::scalar || !node->text.empty();
}

void YamlReader::mistake(std::string_view key, std::string_view why) {
  const YamlNode* node = find(key);
  report_.add(node != nullptr ? node->line : line_, full(key), why);
}

void YamlReader::mistake_at(std::string_view path_below, std::string_view why) {
  const YamlNode* node = node_;
  unsigned line = line_;
  for (std::size_t at = 0; node != nullptr && at <= path_below.size();) {
    const std::size_t end = std::min(path_below.find('.', at), path_below.size());
    const YamlReader level(node, "", line, report_);
    node = level.find(path_below.substr(at, end - at));
    if (node != nullptr) line = node->line;
    at = end + 1;
  }
  report_.add(line, full(path_below), why);
}

void YamlReader::require(std::string_view key, std::string_view when) {
  if (!has(key)) mistake(key, when.empty() ? "required" : "required " + std::string(when));
}

const std::string* YamlReader::scalar(std::string_view key, std::string_view expected) {
  const YamlNode* node = ask(key);
  if (node == nullptr) return nullptr;
  if (node->kind == YamlNode::Kind::scalar) return &node->text;
  mistake(key, "must be " + std::string(expected) + ", not " +
                   (node->kind == YamlNode::Kind::list ? "a list" : "a section"));
  return nullptr;
}

void YamlReader::text(std::string_view key, std::string& out) {
  const std::string* value = scalar(key, "a text");
  if (value == nullptr) return;
  if (has_control(*value)) return mistake(key, kOneLine);
  out = *value;
}

void YamlReader::path(std::string_view key, std::filesystem::path& out) {
  std::string value = out.string();
  text(key, value);
  if (value == out.string()) return;
  if (value.empty()) return mistake(key, "must not be empty");
  // Not shown: it may be a secret that stands in the wrong place.
  if (value[0] != '/') return mistake(key, "must be an absolute path");
  out = std::filesystem::path(value).lexically_normal();
  if (!out.has_filename() && out != out.root_path()) out = out.parent_path();
}

void YamlReader::path(std::string_view key, std::optional<std::filesystem::path>& out) {
  std::filesystem::path value;
  path(key, value);
  if (!value.empty()) out = std::move(value);
}

void YamlReader::choice(std::string_view key, std::string& out, const std::vector<std::string_view>& words) {
  const std::string expected = "one of " + join(words);
  const std::string* value = scalar(key, expected);
  if (value == nullptr) return;
  if (std::find(words.begin(), words.end(), *value) == words.end()) {
    const std::string_view near = nearest(*value, words);
    return mistake(key, "must be " + expected + ", not " + in_quotes(*value) +
                            (near.empty() ? "" : " (did you mean " + in_quotes(near) + "?)"));
  }
  out = *value;
}

void YamlReader::boolean(std::string_view key, bool& out) {
  const std::string* value = scalar(key, "true or false");
  if (value == nullptr) return;
  for (const std::string_view word : {"true", "True", "TRUE", "yes", "on"}) {
    if (*value == word) out = true;
    if (*value == word) return;
  }
  for (const std::string_view word : {"false", "False", "FALSE", "no", "off"}) {
    if (*value == word) out = false;
    if (*value == word) return;
  }
  mistake(key, "must be true or false, not " + in_quotes(*value));
}

void YamlReader::words(std::string_view key, std::vector<std::string>& out) {
  const YamlNode* node = ask(key);
  if (node == nullptr) return;
  if (node->kind == YamlNode::Kind::scalar) {
    if (node->text.find_first_of(" \t") != std::string::npos) {
      return mistake(key, "must be a list, one word an item: [\"a\", \"b\"]");
    }
    if (has_control(node->text)) return mistake(key, kOneLine);
    out = {node->text};
    return;
  }
  if (node->kind != YamlNode::Kind::list) return mistake(key, "must be a list of texts, not a section");
  std::vector<std::string> found;
  for (const YamlNode& item : node->items) {
    if (item.kind != YamlNode::Kind::scalar || item.text.empty()) {
      return report_.add(item.line, full(key) + "[" + std::to_string(found.size()) + "]", "must be a text");
    }
    if (has_control(item.text)) {
      return report_.add(item.line, full(key) + "[" + std::to_string(found.size()) + "]", kOneLine);
    }
    found.push_back(item.text);
  }
  out = std::move(found);
}

void YamlReader::size(std::string_view key, std::uint64_t& out, std::uint64_t min, std::uint64_t max) {
  const std::string* value = scalar(key, "a size such as 32MiB");
  if (value == nullptr) return;
  const auto size = parse_size(*value);
  if (!size) return mistake(key, "must be a size such as 512KiB, 32MiB or 4GiB, not " + in_quotes(*value));
  if (*size < min || *size > max) {
    return mistake(key, max == UINT64_MAX ? "must be at least " + format_size(min)
                                          : "must be from " + format_size(min) + " to " + format_size(max));
  }
  out = *size;
}

void YamlReader::rate(std::string_view key, std::uint64_t& out) {
  const std::string* value = scalar(key, "a size per second such as 50MiB");
  if (value == nullptr) return;
  std::string_view number = *value;
  if (number.ends_with("/s")) number.remove_suffix(2);
  const auto rate = parse_size(number);
  if (!rate)
    return mistake(key, "must be a size per second such as 50MiB, or 0 for no limit, not " + in_quotes(*value));
  if (*rate != 0 && *rate < 1024) return mistake(key, "must be at least 1KiB, or 0 for no limit");
  out = *rate;
}

void YamlReader::duration(std::string_view key, Millis& out, Millis min) {
  const std::string* value = scalar(key, "a time such as 30s");
  if (value == nullptr) return;
  const auto duration = parse_duration(*value);
  if (!duration)
    return mistake(key, "must be a time with its unit, such as 500ms, 30s, 10m, 24h or 7d, not " + in_quotes(*value));
  if (*duration < min) return mistake(key, "must be at least " + format_duration(min));
  out = *duration;
}

void YamlReader::mode(std::string_view key, unsigned& out) {
  const std::string* value = scalar(key, "an octal mode such as 0660");
  if (value == nullptr) return;
  const auto mode = parse_mode(*value);
  if (!mode || (*mode & 0600) != 0600) {
    return mistake(key, "must be an octal mode such as 0660, at least 0600, not " + in_quotes(*value));
  }
  out = *mode;
}

std::optional<std::uint64_t> YamlReader::whole(std::string_view key, std::uint64_t min, std::uint64_t max) {
  const std::string expected = "a whole number from " + std::to_string(min) + " to " + std::to_string(max);
  const std::string* value = scalar(key, expected);
  if (value == nullptr) return std::nullopt;
  const auto number = parse_whole(*value);
  if (number && *number >= min && *number <= max) return number;
  mistake(key, "must be " + expected + ", not " + in_quotes(*value));
  return std::nullopt;
}

void YamlReader::section(std::string_view key, const std::function<void(YamlReader&)>& read) {
  known_.emplace_back(key);
  const YamlNode* named = find(key);
  const YamlNode* node = named != nullptr && named->kind != YamlNode::Kind::null ? named : nullptr;
  if (node != nullptr && node->kind != YamlNode::Kind::map) return mistake(key, "must be a section of keys");
  YamlReader reader(node, full(key), named != nullptr ? named->line : line_, report_);
  read(reader);
  reader.finish();
}

void YamlReader::each(std::string_view key, const std::function<void(YamlReader&)>& read) {
  const YamlNode* node = ask(key);
  if (node == nullptr) return;
  if (node->kind != YamlNode::Kind::list) return mistake(key, "must be a list");
  std::size_t number = 0;
  for (const YamlNode& item : node->items) {
    const std::string item_path = full(key) + "[" + std::to_string(number++) + "]";
    if (item.kind != YamlNode::Kind::map) {
      report_.add(item.line, item_path, "must be a map of keys");
      continue;
    }
    YamlReader reader(&item, item_path, item.line, report_);
    read(reader);
    reader.finish();
  }
}

void YamlReader::finish() {
  if (node_ == nullptr) return;
  const std::vector<std::string_view> known(known_.begin(), known_.end());
  for (const auto& [name, value] : node_->members) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string_view near = nearest(name, known);
    report_.add(value.line, full(printable(name)),
                near.empty() ? "unknown key (known: " + join(known) + ")"
                             : "unknown key (did you mean " + in_quotes(near) + "?)");
  }
}

}  // namespace guestagent

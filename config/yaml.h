// One YAML document read with its paths and lines, every mistake collected. yaml-cpp is behind yaml.cc alone.
//
// The file's language is a small part of YAML: maps, lists and scalars to a bounded depth; no aliases,
// anchors, tags, second documents, or keys that are not plain words. A key without a value ("unit:") means
// its default.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace guestagent {

inline constexpr std::size_t kMaxYamlBytes = std::size_t{1} << 20;
inline constexpr std::size_t kMaxYamlDepth = 16;

struct YamlMember;

struct YamlNode {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  unsigned line = 1;  // from 1; of a member, its key's
  std::string text;   // scalar
  std::vector<YamlNode> items;
  std::vector<YamlMember> members;  // map, in order
};

struct YamlMember {
  std::string name;
  YamlNode value;
};

// What is wrong in one document, and which keys were asked for.
class YamlReport {
 public:
  explicit YamlReport(std::string_view name) : name_(name) {}
  void add(unsigned line, std::string_view path, std::string_view why);
  // Throws Error(invalid_argument) with one line for each mistake, in order of lines, if there is any.
  void throw_if_any() const;
  bool any() const { return !mistakes_.empty(); }
  void asked(const std::string& path) { keys_.push_back(path); }
  const std::vector<std::string>& keys() const { return keys_; }

 private:
  struct Mistake {
    unsigned line;
    std::string text;
  };
  std::string name_;
  std::vector<Mistake> mistakes_;
  std::vector<std::string> keys_;
};

// Throws Error(invalid_argument), "NAME (line 3): why", for what is not the language above. An empty document
// is an empty map.
YamlNode parse_yaml(std::string_view text, std::string_view name);

// Reads the members of one map. A read leaves `out` alone when the key is absent or without a value, and
// reports a wrong one. Every key asked for is known; finish() reports the others. REQUIRES: node and report
// outlive the reader.
class YamlReader {
 public:
  YamlReader(const YamlNode* node, std::string path, unsigned line, YamlReport& report);

  bool has(std::string_view key) const;  // present, with a value that is not ""
  void text(std::string_view key, std::string& out);
  void path(std::string_view key, std::filesystem::path& out);  // absolute; "" only where it is the default
  void path(std::string_view key, std::optional<std::filesystem::path>& out);
  void choice(std::string_view key, std::string& out, const std::vector<std::string_view>& words);
  void boolean(std::string_view key, bool& out);
  void words(std::string_view key, std::vector<std::string>& out);  // a list, or one word
  void size(std::string_view key, std::uint64_t& out, std::uint64_t min = 0, std::uint64_t max = UINT64_MAX);
  void rate(std::string_view key, std::uint64_t& out);  // a size, "/s" allowed
  void duration(std::string_view key, Millis& out, Millis min = Millis(0));
  void mode(std::string_view key, unsigned& out);
  template <typename Integer>
  void number(std::string_view key, Integer& out, std::uint64_t min, std::uint64_t max) {
    if (const auto value = whole(key, min, max)) out = static_cast<Integer>(*value);
  }
  std::optional<std::uint64_t> whole(std::string_view key, std::uint64_t min, std::uint64_t max);

  void section(std::string_view key, const std::function<void(YamlReader&)>& read);
  // Each map in a list of maps.
  void each(std::string_view key, const std::function<void(YamlReader&)>& read);

  // About a member, at its line, or at the section's when it is absent.
  void mistake(std::string_view key, std::string_view why);
  // The same about a member anywhere below, by its path from here ("mysql.data_dir").
  void mistake_at(std::string_view path_below, std::string_view why);
  void require(std::string_view key, std::string_view when = {});  // reports it when absent: "required when …"
  void finish();

 private:
  const YamlNode* find(std::string_view key) const;
  // The member if it has a value; its key is known from now on.
  const YamlNode* ask(std::string_view key);
  const std::string* scalar(std::string_view key, std::string_view expected);
  std::string full(std::string_view key) const;

  const YamlNode* node_;  // nullptr: absent
  std::string path_;
  unsigned line_;
  YamlReport& report_;
  std::vector<std::string> known_;
};

}  // namespace guestagent

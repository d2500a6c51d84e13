// config/guestagent.yaml against the parser and the defaults.
#include <gmock/gmock.h>

#include <algorithm>
#include <regex>
#include <set>
#include <sstream>

#include "base/file.h"
#include "config/settings.h"
#include "config/settings_keys.h"
#include "config/yaml.h"
#include "storage/stores.h"

namespace guestagent {
namespace {

constexpr std::string_view kRequired = "advertised_address: db1.example";

Settings parse_as_shipped(std::string_view yaml, std::string_view name) {
  return parse_settings(yaml, name, store_sections());
}

std::vector<std::string> shipped_lines() {
  std::istringstream in(read_file(fs::path(GUESTAGENT_SOURCE_DIR) / "config" / "guestagent.yaml"));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// "#key: value" is a setting; "# text" is prose.
bool commented_setting(const std::string& line) {
  static const std::regex shape("^ *#[a-z0-9_]+:.*$");
  return std::regex_match(line, shape);
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (std::string line : lines) {
    if (line == "  advertised_address:") line = "  " + std::string(kRequired);
    text += line + "\n";
  }
  return text;
}

void uncomment(std::string& line) {
  line.erase(line.find('#'), 1);
}

Settings defaults() {
  Settings settings;
  settings.mysql.advertised_address = "db1.example";
  return settings;
}

void collect(const YamlNode& node, const std::string& path, std::set<std::string>& keys) {
  if (node.kind == YamlNode::Kind::map && !node.members.empty()) {
    for (const auto& [name, value] : node.members) collect(value, path.empty() ? name : path + "." + name, keys);
  } else {
    keys.insert(path);
  }
}

TEST(ShippedFile, IsCompleteButForTheRequiredKey) {
  const std::string text = read_file(fs::path(GUESTAGENT_SOURCE_DIR) / "config" / "guestagent.yaml");
  try {
    parse_as_shipped(text, "guestagent.yaml");
    FAIL() << "the required key was not missed";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::invalid_argument);
    EXPECT_THAT(e.what(),
                testing::MatchesRegex("guestagent.yaml: mysql.advertised_address \\(line [0-9]+\\): required"));
  }
}

TEST(ShippedFile, AsItIsGivesTheDefaults) {
  EXPECT_TRUE(parse_as_shipped(joined(shipped_lines()), "f") == defaults());
}

TEST(ShippedFile, EveryValueShownIsTheDefault) {
  const std::vector<std::string> lines = shipped_lines();
  std::size_t shown = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (!commented_setting(lines[i])) continue;
    ++shown;
    std::vector<std::string> one = lines;
    uncomment(one[i]);
    EXPECT_TRUE(parse_as_shipped(joined(one), "f") == defaults()) << "line " << i + 1 << ": " << lines[i];
  }
  EXPECT_EQ(shown + 1, setting_keys(store_sections()).size());
}

TEST(ShippedFile, AllValuesTogetherAreTheDefaults) {
  std::vector<std::string> lines = shipped_lines();
  for (std::string& line : lines) {
    if (commented_setting(line)) uncomment(line);
  }
  EXPECT_TRUE(parse_as_shipped(joined(lines), "f") == defaults());
}

TEST(ShippedFile, ShowsEveryKeyOnceInTheParsersOrder) {
  std::vector<std::string> lines = shipped_lines();
  for (std::string& line : lines) {
    if (commented_setting(line)) uncomment(line);
  }
  std::set<std::string> shown;
  collect(parse_yaml(joined(lines), "f"), "", shown);
  const std::vector<std::string> known = setting_keys(store_sections());
  EXPECT_THAT(shown, testing::UnorderedElementsAreArray(known));
}

// A default that a test cannot tell from another value would hide a wrong line in the file.
TEST(ShippedFile, ComparisonSeesEveryKey) {
  std::vector<std::string> lines = shipped_lines();
  const std::string text = std::regex_replace(joined(lines), std::regex("#lag_limit: 1m"), "lag_limit: 2m");
  EXPECT_FALSE(parse_as_shipped(text, "f") == defaults());
}

TEST(ShippedFile, EveryKeyIsExplained) {
  const std::vector<std::string> lines = shipped_lines();
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (!commented_setting(lines[i])) continue;
    // Upwards over neighbouring settings and section heads there is prose before an empty line.
    bool explained = false;
    for (std::size_t j = i; j-- > 0 && !lines[j].empty() && !explained;)
      explained = lines[j].find("# ") != std::string::npos;
    EXPECT_TRUE(explained) << "line " << i + 1 << ": " << lines[i];
  }
}

}  // namespace
}  // namespace guestagent

// Hostile YAML: an error with its line, never a crash, a hang or much memory.
#include "config/yaml.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace guestagent {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string refused_text(std::string_view text) {
  try {
    parse_yaml(text, "f.yaml");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::invalid_argument);
    EXPECT_THAT(e.what(), StartsWith("f.yaml"));
    EXPECT_THAT(e.hint(), HasSubstr("guestagent.yaml")) << "what a call takes does not help here";
    return e.what();
  }
  return "accepted";
}

std::string repeated(std::string_view text, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += text;
  return out;
}

TEST(ParseYaml, BuildsATreeWithLines) {
  const YamlNode root = parse_yaml("a: 1\nb:\n  - x\n  - {c: \"q\"}\nd:\ne: ''\n", "f.yaml");
  ASSERT_EQ(root.members.size(), 4u);
  EXPECT_EQ(root.members[0].value.text, "1");
  EXPECT_EQ(root.members[1].name, "b");
  EXPECT_EQ(root.members[1].value.line, 2u);
  EXPECT_EQ(root.members[1].value.items[0].text, "x");
  EXPECT_EQ(root.members[1].value.items[1].line, 4u);
  EXPECT_EQ(root.members[1].value.items[1].members[0].value.text, "q");
  EXPECT_EQ(root.members[2].value.kind, YamlNode::Kind::null);
  EXPECT_EQ(root.members[3].value.kind, YamlNode::Kind::scalar);
}

TEST(ParseYaml, RefusesWhatTheFileHasNoUseFor) {
  EXPECT_THAT(refused_text("a: 1\nb: 2\na: 3\n"), HasSubstr("(line 3): the key \"a\" stands there twice"));
  EXPECT_THAT(refused_text("x:\n  a: {k: 1, k: 2}\n"), HasSubstr("twice"));
  EXPECT_THAT(refused_text("a: &x 1\nb: *x\n"), HasSubstr("(line 1): anchors"));
  EXPECT_THAT(refused_text("a: *x\n"), HasSubstr("(line 1)"));
  EXPECT_THAT(refused_text("a: !!python/object 1\n"), HasSubstr("tags"));
  EXPECT_THAT(refused_text("a: !x [1]\n"), HasSubstr("tags"));
  EXPECT_THAT(refused_text("a: 1\n---\nb: 2\n"), HasSubstr("a second document"));
  EXPECT_THAT(refused_text("[a, b]: 1\n"), HasSubstr("a key must be a word"));
  EXPECT_THAT(refused_text("? {a: b}\n: 1\n"), HasSubstr("a key must be a word"));
  EXPECT_THAT(refused_text("? \n: 1\n"), HasSubstr("a key must be a word"));
  EXPECT_THAT(refused_text("~: 1\n"), HasSubstr("a key without a name"));
  EXPECT_THAT(refused_text("- a\n"), HasSubstr("must be a map of sections"));
  EXPECT_THAT(refused_text("text\n"), HasSubstr("must be a map of sections"));
  EXPECT_THAT(refused_text("a: [1\nb: 2\n"), HasSubstr("not YAML"));
  EXPECT_THAT(refused_text("a: b: c\n"), HasSubstr("(line 1): not YAML"));
  EXPECT_THAT(refused_text("b: c\na: \"open\n"), HasSubstr("(line 2): the quote is not closed"));
  EXPECT_THAT(refused_text("# \xC3\xA9\xF0\x9F\x98\x80\na: \"open\n"), HasSubstr("(line 2): the quote is not closed"));
  EXPECT_THAT(refused_text("a: 'it''s open\n"), HasSubstr("the quote is not closed"));
  EXPECT_THAT(refused_text("a: \"\\\"\n"), HasSubstr("the quote is not closed"));
  EXPECT_EQ(refused_text("\xEF\xBB\xBF\xC3\xA9: \"\\\"\"\nb: 'it''s'\n\"c\": |\n  text\n"), "accepted");
  EXPECT_THAT(refused_text("\ta: 1\n"), HasSubstr("not YAML"));
  EXPECT_THAT(refused_text("a: }\n"), HasSubstr("not YAML"));
}

TEST(ParseYaml, RefusesWhatIsNoText) {
  using namespace std::string_view_literals;
  EXPECT_THAT(refused_text("a: \xFF\n"), HasSubstr("UTF-8"));
  EXPECT_THAT(refused_text("a: b\0c\n"sv), HasSubstr("UTF-8"));
  EXPECT_THAT(refused_text("\xFE\xFF\0a"sv), HasSubstr("UTF-8"));
  EXPECT_THAT(refused_text(std::string(kMaxYamlBytes + 1, ' ')), HasSubstr("larger than 1 MiB"));
}

TEST(ParseYaml, BombsOfAliasesAreRefused) {
  std::string bomb = "a0: &a0 [x, x]\n";
  for (int i = 1; i < 40; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before + ", " + before + "]\n";
  }
  EXPECT_THAT(refused_text(bomb), HasSubstr("not supported"));
}

TEST(ParseYaml, DeepNestingOfEveryKindIsRefused) {
  for (const std::string& deep :
       {repeated("[", 100000), repeated("{", 100000), repeated("{a: ", 100000),
        repeated("[[", 300) + repeated("]]", 300), "a: " + repeated("[", 17) + repeated("]", 17),
        repeated("- ", 100000), repeated("? ", 100000), repeated("- ? ", 100000), repeated("[#\n", 100000),
        "a: " + repeated("\"\"[", 100000), repeated("a:\n ", 1000)}) {
    EXPECT_NE(refused_text(deep), "accepted") << deep.substr(0, 20);
  }
  std::string steps;
  for (std::size_t i = 0; i < 1000; ++i) steps += std::string(i, ' ') + "a:\n";
  EXPECT_THAT(refused_text(steps), HasSubstr("nested deeper than 16 levels"));
  EXPECT_EQ(refused_text("a: " + repeated("[", 15) + repeated("]", 15)), "accepted");
}

TEST(ParseYaml, LargeFlatFilesAreFine) {
  std::string flat;
  for (int i = 0; flat.size() < kMaxYamlBytes - 100; ++i) flat += "key" + std::to_string(i) + ": value\n";
  EXPECT_EQ(refused_text(flat), "accepted");
  EXPECT_EQ(refused_text("a: \"" + std::string(kMaxYamlBytes - 100, 'x') + "\"\n"), "accepted");
  EXPECT_EQ(refused_text("a: " + std::string(kMaxYamlBytes - 100, 'x') + "\n"), "accepted");
  EXPECT_EQ(refused_text(repeated("#", kMaxYamlBytes)), "accepted");
  EXPECT_EQ(refused_text(repeated("\n", kMaxYamlBytes)), "accepted");
}

TEST(ParseYaml, SurvivesEveryCut) {
  const std::string good =
      "a: {b: [1, 'two', \"th\\u00e9\"]}\nc: |\n  text\n  more\nd: >-\n  folded\ne:\n- f: g\n  h: ~\n";
  ASSERT_EQ(refused_text(good), "accepted");
  for (std::size_t i = 0; i < good.size(); ++i) refused_text(good.substr(0, i));
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const char c : {'[', '{', '&', '*', '!', '%', '\t', '"', '\n', ':', '-', '?'}) {
      std::string bad = good;
      bad[i] = c;
      refused_text(bad);
    }
  }
}

}  // namespace
}  // namespace guestagent

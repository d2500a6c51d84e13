#include "base/json.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <thread>

namespace guestagent {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string parse_error(std::string_view text) {
  try {
    parse_json(text, "input");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::invalid_argument) << text.substr(0, 100);
    EXPECT_THAT(e.what(), StartsWith("input: at byte ")) << text.substr(0, 100);
    return e.what();
  }
  return "accepted";
}

template <typename F>
std::string reading_error(F read) {
  try {
    read();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::invalid_argument);
    return e.what();
  }
  return "accepted";
}

TEST(ParseJson, AcceptsEveryKindOfValue) {
  EXPECT_EQ(to_json(parse_json(R"( {"a":[1,-2,3.5,true,false,null,"x"],"b":{}} )", "input")),
            R"({"a":[1,-2,3.5,true,false,null,"x"],"b":{}})");
  EXPECT_EQ(to_json(parse_json("18446744073709551615", "input")), "18446744073709551615");
  EXPECT_EQ(to_json(parse_json("\"\\u0000\\ud83d\\ude00\"", "input")), "\"\\u0000\xF0\x9F\x98\x80\"");
}

TEST(ParseJson, RefusesWhatIsNotJson) {
  for (const std::string_view text : {"",
                                      " ",
                                      "{",
                                      "}",
                                      "[1,]",
                                      "{\"a\":1,}",
                                      "{a:1}",
                                      "{'a':1}",
                                      "nul",
                                      "tru",
                                      "+1",
                                      "01",
                                      "1.",
                                      ".5",
                                      "1e",
                                      "0x10",
                                      "NaN",
                                      "Infinity",
                                      "-Infinity",
                                      "// c\n1",
                                      "/* c */ 1",
                                      "1 2",
                                      "{} {}",
                                      "[1 2]",
                                      "\"",
                                      "\"\\x\"",
                                      "\"\\u12\"",
                                      "\"\\ud800\"",
                                      "\"\\udc00x\"",
                                      "\"\t\"",
                                      "\"a\nb\"",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{1:2}",
                                      "{null:2}",
                                      "1e999",
                                      "-1e999",
                                      "\xEF\xBB\xBF{}"}) {
    EXPECT_NE(parse_error(text), "accepted") << text;
  }
}

TEST(ParseJson, RefusesMalformedUtf8) {
  for (const std::string_view text :
       {"\"\xFF\"", "\"\xC0\xAF\"", "\"\xED\xA0\x80\"", "\"\xF5\x80\x80\x80\"", "\"\xE2\x82\""}) {
    EXPECT_NE(parse_error(text), "accepted");
  }
}

TEST(ParseJson, RefusesZeroBytesWhereverTheyAre) {
  using namespace std::string_view_literals;
  EXPECT_THAT(parse_error("{}\0{}"sv), HasSubstr("at byte 2: a zero byte"));
  EXPECT_NE(parse_error("\"a\0b\""sv), "accepted");
  EXPECT_NE(parse_error("\0"sv), "accepted");
}

TEST(ParseJson, RefusesDuplicateKeysAtAnyLevel) {
  EXPECT_THAT(parse_error(R"({"a":1,"a":2})"), HasSubstr("the key \"a\" stands there twice"));
  EXPECT_THAT(parse_error(R"([{"x":{"b":1,"c":2,"b":1}}])"), HasSubstr("\"b\""));
  EXPECT_THAT(parse_error(R"({"a":1,"\u0061":2})"), HasSubstr("\"a\""));
  EXPECT_EQ(parse_error(R"({"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]})"), "accepted");
}

TEST(ParseJson, LimitsDepth) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(parse_error(nested(64)), "accepted");
  EXPECT_THAT(parse_error(nested(65)), HasSubstr("nested deeper than 64 levels"));
  EXPECT_THAT(parse_error(nested(100000)), HasSubstr("nested deeper than 64 levels"));
  EXPECT_THAT(parse_error(std::string(1000000, '[')), HasSubstr("nested deeper than 64 levels"));
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  EXPECT_THAT(parse_error(objects), HasSubstr("nested deeper than 64 levels"));
}

TEST(ParseJson, SurvivesEveryCutAndEveryFlippedByte) {
  const std::string good = R"({"a":[1,-2.5e3,{"b":"c\u00e9\n"}],"d":null,"e":true})";
  ASSERT_EQ(parse_error(good), "accepted");
  for (std::size_t i = 0; i < good.size(); ++i) EXPECT_NE(parse_error(good.substr(0, i)), "accepted");
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      parse_error(bad);
    }
  }
}

TEST(ParseJson, AFailedAssertionOfTheLibraryIsAnError) {
  const JsonDocument document = parse_json("[1]", "input");
  EXPECT_THROW(document[5].GetInt(), Error);
  EXPECT_THROW(document[0].GetString(), Error);
  EXPECT_THROW(document.FindMember("a"), Error);
}

class JsonReaderTest : public testing::Test {
 protected:
  const JsonDocument document_ =
      parse_json(R"({"s":"text","empty":"","n":7,"neg":-1,"big":18446744073709551615,"f":1.5,"t":true,
    "o":{"inner":{"n":"x"}},"l":["a","b"],"mixed":["a",1],"nothing":null,"nul":"a\u0000b"})",
                 "params");
  const JsonReader in_{document_, "params"};
};

TEST_F(JsonReaderTest, ReadsValuesOfTheRightType) {
  EXPECT_EQ(in_.string("s"), "text");
  EXPECT_EQ(in_.opt_string("empty"), "");
  EXPECT_EQ(in_.string("nul"), std::string("a\0b", 3));
  EXPECT_EQ(in_.uint("n"), 7u);
  EXPECT_EQ(in_.uint("big"), UINT64_MAX);
  EXPECT_EQ(in_.opt_number("f"), 1.5);
  EXPECT_EQ(in_.opt_number("n"), 7.0);
  EXPECT_TRUE(in_.boolean("t"));
  EXPECT_THAT(in_.strings("l"), testing::ElementsAre("a", "b"));
  EXPECT_EQ(in_.array("l")->Size(), 2u);
  EXPECT_EQ(in_.object("o").object("inner").path(), "params.o.inner");
}

TEST_F(JsonReaderTest, AbsentAndNullAreTheSame) {
  for (const std::string_view key : {"nothing", "missing"}) {
    EXPECT_FALSE(in_.has(key));
    EXPECT_FALSE(in_.opt_string(key) || in_.opt_uint(key) || in_.opt_number(key) || in_.opt_boolean(key) ||
                 in_.opt_object(key));
    EXPECT_EQ(in_.array(key), nullptr);
    EXPECT_TRUE(in_.strings(key).empty());
  }
  EXPECT_EQ(reading_error([&] { in_.string("nothing"); }), "params.nothing: required");
  EXPECT_EQ(reading_error([&] { in_.uint("missing"); }), "params.missing: required");
  EXPECT_EQ(reading_error([&] { in_.boolean("missing"); }), "params.missing: required");
  EXPECT_EQ(reading_error([&] { in_.object("missing"); }), "params.missing: required");
}

TEST_F(JsonReaderTest, NamesThePathOfAWrongType) {
  EXPECT_EQ(reading_error([&] { in_.string("n"); }), "params.n: must be a string");
  EXPECT_EQ(reading_error([&] { in_.opt_string("o"); }), "params.o: must be a string");
  EXPECT_EQ(reading_error([&] { in_.uint("s"); }), "params.s: must be a whole number");
  EXPECT_EQ(reading_error([&] { in_.uint("neg"); }), "params.neg: must be a whole number");
  EXPECT_EQ(reading_error([&] { in_.uint("f"); }), "params.f: must be a whole number");
  EXPECT_EQ(reading_error([&] { in_.uint("n", 8); }), "params.n: must be a whole number of at least 8");
  EXPECT_EQ(reading_error([&] { in_.uint("big", 1, 4294967295); }),
            "params.big: must be a whole number from 1 to 4294967295");
  EXPECT_EQ(reading_error([&] { in_.opt_number("s"); }), "params.s: must be a number");
  EXPECT_EQ(reading_error([&] { in_.boolean("n"); }), "params.n: must be true or false");
  EXPECT_EQ(reading_error([&] { in_.object("l"); }), "params.l: must be an object");
  EXPECT_EQ(reading_error([&] { in_.array("o"); }), "params.o: must be an array");
  EXPECT_EQ(reading_error([&] { in_.strings("mixed"); }), "params.mixed[1]: must be a string");
  EXPECT_EQ(reading_error([&] { in_.object("o").object("inner").uint("n"); }),
            "params.o.inner.n: must be a whole number");
}

TEST_F(JsonReaderTest, ThrowsItsOwnCode) {
  const JsonReader manifest(document_, "manifest.json", Code::data_loss);
  for (const auto& read : std::initializer_list<std::function<void()>>{[&] { manifest.string("n"); },
                                                                       [&] { manifest.object("o").string("inner"); },
                                                                       [&] { manifest.allow_only({"s"}); }}) {
    try {
      read();
      ADD_FAILURE() << "accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::data_loss);
    }
  }
}

TEST_F(JsonReaderTest, RefusesAnythingButAnObject) {
  for (const std::string_view text : {"[]", "1", "\"x\"", "null", "true"}) {
    const JsonDocument other = parse_json(text, "params");
    EXPECT_EQ(reading_error([&] { JsonReader(other, "params"); }), "params: must be an object");
  }
}

TEST(AllowOnly, NamesTheUnknownKeyAndTheNearest) {
  const JsonDocument document = parse_json(R"({"snapshot":1,"asinc":true})", "params");
  try {
    JsonReader(document, "params").allow_only({"snapshot", "async"});
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "params.asinc: unknown key");
    EXPECT_EQ(e.hint(), "did you mean \"async\"? known keys: snapshot, async");
  }
  EXPECT_NO_THROW(JsonReader(document, "params").allow_only({"snapshot", "async", "asinc"}));
}

TEST(AllowOnly, ShowsAStrangersKeySafely) {
  const std::string text = "{\"" + std::string(100000, 'k') + "\\n\\u0000\":1}";
  const JsonDocument document = parse_json(text, "params");
  const std::string message = reading_error([&] { JsonReader(document, "params").allow_only({}); });
  EXPECT_LT(message.size(), 200u);
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST(JsonWriter, WritesWhatTheParserReads) {
  JsonWriter out;
  out.begin_object()
      .member("text", std::string("a\"\\\n\x01"))
      .member("literal", "x")
      .member("u", UINT64_MAX)
      .member("i", std::int64_t{-5})
      .member("t", true)
      .member("d", 0.5)
      .member_or_null("none", std::optional<std::string>())
      .member_or_null("some", std::optional<std::uint64_t>(3))
      .key("list")
      .begin_array()
      .value(1)
      .null()
      .raw(R"({"raw":1})")
      .end_array()
      .end_object();
  EXPECT_EQ(out.text(),
            R"({"text":"a\"\\\n\u0001","literal":"x","u":18446744073709551615,"i":-5,"t":true,"d":0.5,"none":null,)"
            R"("some":3,"list":[1,null,{"raw":1}]})");
  EXPECT_EQ(to_json(parse_json(out.text(), "output")), out.text());
}

TEST(JsonWriter, NumbersHaveAtMostThreeDecimalsAndAreAlwaysJson) {
  const auto written = [](double number) { return JsonWriter().value(number).text(); };
  EXPECT_EQ(written(0.4), "0.4");
  EXPECT_EQ(written(1.0 / 3), "0.333");
  EXPECT_EQ(written(2.0 / 3), "0.667");
  EXPECT_EQ(written(1e-9), "0.0");
  EXPECT_EQ(written(-1.5), "-1.5");
  EXPECT_EQ(written(123456789.1234), "123456789.123");
  EXPECT_EQ(written(std::nan("")), "null");
  EXPECT_EQ(written(std::numeric_limits<double>::infinity()), "null");
  for (const double number : {1e15, 1e22, 1.7e308, -1e300, 4294967296.5}) parse_json(written(number), "number");
}

TEST(JsonWriter, MalformedTextIsMended) {
  EXPECT_EQ(JsonWriter().value(std::string("a\xFFz")).text(), "\"a\xEF\xBF\xBDz\"");
  EXPECT_EQ(JsonWriter().value(std::string_view()).text(), "\"\"");
  EXPECT_EQ(JsonWriter().begin_object().member("", "").end_object().text(), "{\"\":\"\"}");
}

}  // namespace
}  // namespace guestagent

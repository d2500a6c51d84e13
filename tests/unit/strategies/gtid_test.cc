#include "strategies/mysql/server/gtid.h"

#include <gtest/gtest.h>

#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

using test::code_of;

constexpr char kA[] = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
constexpr char kB[] = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

GtidSet maria(std::string_view text) {
  return GtidSet::parse(GtidKind::mariadb, text);
}
GtidSet mysql(std::string_view text) {
  return GtidSet::parse(GtidKind::mysql, text);
}
std::string a(const std::string& rest) {
  return kA + rest;
}
std::string b(const std::string& rest) {
  return kB + rest;
}

TEST(Gtid, MariadbIsComparedByDomain) {
  EXPECT_TRUE(maria("0-1-205,1-3-7").contains(maria("0-9-200")));
  EXPECT_TRUE(maria("0-1-205").contains(maria("")));
  EXPECT_FALSE(maria("0-1-205").contains(maria("0-1-206")));
  EXPECT_FALSE(maria("0-1-205").contains(maria("0-1-1,2-1-1")));
  EXPECT_FALSE(maria("").contains(maria("0-1-1")));
  EXPECT_EQ(maria("0-1-200").missing(maria("0-1-205,7-1-10")), 15U);
}

TEST(Gtid, MariadbTextIsTheServers) {
  EXPECT_EQ(maria(" 10-1-3, 2-1-4 ").text(), "2-1-4,10-1-3");
  EXPECT_EQ(maria("").text(), "");
  // A state has several servers of one domain.
  EXPECT_EQ(maria("0-2-101,0-1-150").text(), "0-1-150,0-2-101");
}

TEST(Gtid, WhatAServerWroteItselfIsFoundInMariadbsState) {
  const GtidSet state = maria("0-1-150,0-2-101,5-2-7");
  EXPECT_EQ(state.written_by("2").text(), "0-2-101,5-2-7");
  EXPECT_TRUE(state.written_by("3").empty());
  EXPECT_EQ(state.written_by("2").minus(maria("0-2-101")).text(), "5-2-7");
  EXPECT_TRUE(state.written_by("2").minus(maria("0-2-101,5-2-9")).empty());
  EXPECT_EQ(state.written_by("2").minus(maria("0-2-100")).text(), "0-2-101,5-2-7");
}

TEST(Gtid, MysqlIntervalsAreMerged) {
  EXPECT_EQ(mysql(a(":7-9:1-3:4")).text(), a(":1-4:7-9"));
  EXPECT_EQ(mysql(a(":1-5") + ",\n" + b(":1")).text(), a(":1-5,") + b(":1"));
  EXPECT_EQ(mysql("3E11FA47-71CA-11E1-9E33-C80AA9429562:1").text(), a(":1"));
}

TEST(Gtid, MysqlContainsAndMinus) {
  EXPECT_TRUE(mysql(a(":1-10")).contains(mysql(a(":2-3:9"))));
  EXPECT_FALSE(mysql(a(":1-10")).contains(mysql(a(":10-11"))));
  EXPECT_FALSE(mysql(a(":1-10")).contains(mysql(b(":1"))));
  EXPECT_EQ(mysql(a(":1-10,") + b(":5")).minus(mysql(a(":3-4:8"))).text(), a(":1-2:5-7:9-10,") + b(":5"));
  EXPECT_EQ(mysql(a(":1-2:5-6:9-10")).minus(mysql(a(":2-9"))).text(), a(":1:10"));
  EXPECT_EQ(mysql(a(":5")).missing(mysql(a(":1-10"))), 9U);
  EXPECT_EQ(mysql(a(":1-10,") + b(":5")).written_by(kB).text(), b(":5"));
}

TEST(Gtid, MysqlTagsAreSetsOfTheirOwn) {
  EXPECT_EQ(mysql(a(":1-5:tag_1:1-3")).text(), a(":1-5,") + a(":tag_1:1-3"));
  EXPECT_FALSE(mysql(a(":1-5")).contains(mysql(a(":Tag:1"))));
  EXPECT_TRUE(mysql(a(":tag:1-9")).contains(mysql(a(":TAG:3"))));
}

TEST(Gtid, EveryTextOfItsOwnIsReadBack) {
  for (const std::string& text : {a(":1-5:7:9-12,") + b(":t:1-2"), a(":9223372036854775807")}) {
    EXPECT_EQ(mysql(mysql(text).text()).text(), mysql(text).text());
  }
}

TEST(Gtid, WhatIsNoSetIsRefused) {
  for (const std::string& text :
       {std::string("0-1"), std::string("0-1-"), std::string("0-1-2-3"), std::string("a-1-2"), std::string("0-1-0"),
        std::string("0-1-2,"), std::string("0-4294967296-1"), std::string("0-1-18446744073709551616"),
        std::string("0-1-2 0-1-3"), std::string("-1-1-1")}) {
    EXPECT_EQ(code_of([&] { maria(text); }), "INVALID_ARGUMENT") << text;
  }
  for (const std::string& text :
       {std::string("x"), std::string(kA), a(":"), a(":0"), a(":5-4"), a(":1-"), a(":1--2"), a(":tag"), a(":tag:"),
        a(":9223372036854775808"), a(":1:ta-g:1"), std::string("3e11fa47-71ca-11e1-9e33-c80aa942956:1")}) {
    EXPECT_EQ(code_of([&] { mysql(text); }), "INVALID_ARGUMENT") << text;
  }
  EXPECT_EQ(code_of([] { GtidSet::parse(GtidKind::none, "0-1-2"); }), "INVALID_ARGUMENT");
}

// A number that another server wrote is not the transaction of that number which this one has.
TEST(Gtid, ByNumbersAloneMariadbsHistoriesAreNotOne) {
  const struct {
    const char *here, *logged, *followed, *left;
  } kCases[] = {
      {"0-1-505", "0-1-505", "", ""},
      {"0-1-505", "0-1-600", "", ""},
      {"0-1-505", "0-1-500,0-2-510", "0-1-500", "0-1-505"},  // the old source went on by itself
      {"0-1-500", "0-1-500,0-2-510", "0-1-500", ""},
      {"0-1-500", "0-2-510", "0-1-500", ""},  // it logged nothing of the old one, and has followed it so far
      {"0-1-501", "0-2-510", "0-1-500", "0-1-501"},
      {"0-7-80", "0-1-600", "0-1-100", "0-7-80"},  // perhaps it is there, it cannot be shown
      {"0-1-5,1-1-9", "0-1-5,1-1-8", "", "1-1-9"},
      {"3-1-1", "", "", "3-1-1"},
      {"", "0-1-5", "", ""},
  };
  for (const auto& each : kCases) {
    EXPECT_EQ(maria(each.here).position().not_written_in(maria(each.logged), maria(each.followed)).text(), each.left)
        << each.here << " in " << each.logged << " and " << each.followed;
  }
  EXPECT_TRUE(maria("0-2-510").contains(maria("0-1-505"))) << "by number it is";
  EXPECT_EQ(GtidSet().missing(maria("0-1-505").not_written_in(maria("0-1-500,0-2-510"), {})), 5U);
}

TEST(Gtid, ManyIntervalsInTheWorstOrderStayCheap) {
  std::string text(kA);
  for (int i = 100000; i > 0; --i) text += ":" + std::to_string(i * 2);
  const GtidSet many = mysql(text);
  EXPECT_EQ(mysql("").missing(many), 100000U);
  EXPECT_TRUE(many.contains(many));
  EXPECT_TRUE(many.minus(many).empty());
}

}  // namespace
}  // namespace guestagent::mysql

#include "agent/host_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"

namespace guestagent {
namespace {

using testing::HasSubstr;
using testing::Not;

Check check(const std::string& name, Check::Result result, Code code = Code::internal) {
  return {name, result, "about " + name, "mend " + name, code};
}

TEST(HostReport, NothingToFix) {
  HostReport report;
  report.add(check("config", Check::Result::ok));
  report.add(check("store", Check::Result::skipped));
  EXPECT_TRUE(report.ok());
  EXPECT_EQ(report.exit_status(), 0);
  EXPECT_THAT(report.text(), HasSubstr("Nothing to fix."));
  EXPECT_THAT(report.text(), Not(HasSubstr("mend config")));
}

TEST(HostReport, FailuresComeBeforeWarningsEachInTheirOrder) {
  HostReport report;
  report.add(check("first", Check::Result::warning));
  report.add({check("second", Check::Result::failed, Code::not_found),
              check("third", Check::Result::failed, Code::unavailable)});
  report.add_mild({check("fourth", Check::Result::failed)});
  EXPECT_FALSE(report.ok());
  EXPECT_EQ(report.exit_status(), code_row(Code::not_found).exit_status);
  const std::string text = report.text();
  const std::string fix = text.substr(text.find("To fix"));
  EXPECT_THAT(fix, HasSubstr("  1. second: about second\n     -> mend second\n  2. third:"));
  EXPECT_THAT(fix, HasSubstr("  3. (better) first: about first\n     -> mend first\n  4. (better) fourth:"));
}

TEST(HostReport, WarningsAloneAreNoFailure) {
  HostReport report;
  report.add_mild({check("binary log", Check::Result::failed)});
  EXPECT_EQ(report.exit_status(), 0);
  EXPECT_THAT(report.text(), HasSubstr("Nothing must be fixed."));
  EXPECT_THAT(report.text(), HasSubstr("warn  binary log"));
}

TEST(HostReport, AsJson) {
  HostReport report;
  report.add(check("clock", Check::Result::warning));
  report.add(check("store", Check::Result::failed, Code::unavailable));
  const JsonDocument document = parse_json(report.json(), "report");
  const JsonReader out(document, "report");
  EXPECT_FALSE(out.boolean("ok"));
  ASSERT_EQ(out.array("checks")->Size(), 2U);
  const JsonReader second((*out.array("checks"))[1], "checks[1]");
  EXPECT_EQ(second.string("code"), "UNAVAILABLE");
  EXPECT_EQ(second.string("result"), "failed");
  ASSERT_EQ(out.array("fix")->Size(), 2U);
  EXPECT_EQ(JsonReader((*out.array("fix"))[0], "fix[0]").string("name"), "store");
  EXPECT_EQ(JsonReader((*out.array("fix"))[0], "fix[0]").string("hint"), "mend store");
}

}  // namespace
}  // namespace guestagent

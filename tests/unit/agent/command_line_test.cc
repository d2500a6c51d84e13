#include "agent/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/commands.h"
#include "agent/methods.h"
#include "tests/support/errors.h"

namespace guestagent {
namespace {

using testing::HasSubstr;

TEST(CommandLineTest, ReadsEachForm) {
  CommandLine line = parse_command_line({"daemon"});
  EXPECT_EQ(line.command, "daemon");
  EXPECT_EQ(line.config, "/etc/guestagent/guestagent.yaml");

  line = parse_command_line({"--config", "my.yaml", "--oneshot", "get_info"});
  EXPECT_EQ(line.command, "oneshot");
  EXPECT_EQ(line.config, "my.yaml");
  EXPECT_EQ(line.method, "get_info");
  EXPECT_EQ(line.params, "");

  line = parse_command_line({"--oneshot", "get_job", "-", "--config=my.yaml", "-v"});
  EXPECT_EQ(line.params, "-");
  EXPECT_TRUE(line.verbose);

  line = parse_command_line({"call", "get_job", R"({"job_id":"x"})"});
  EXPECT_EQ(line.command, "call");
  EXPECT_EQ(line.params, R"({"job_id":"x"})");

  line = parse_command_line({"restore", "file:///x", "--to", "/tmp/y"});
  EXPECT_EQ(line.href, "file:///x");
  EXPECT_EQ(line.to, "/tmp/y");

  EXPECT_FALSE(line.allow_plain);
  EXPECT_TRUE(parse_command_line({"restore", "file:///x", "--to", "/tmp/y", "--allow-plain"}).allow_plain);
  EXPECT_TRUE(parse_command_line({"cat", "file:///x", "--allow-plain"}).allow_plain);

  EXPECT_TRUE(parse_command_line({"check-config", "--syntax-only"}).syntax_only);
  EXPECT_FALSE(parse_command_line({"check-config"}).syntax_only);
  EXPECT_EQ(parse_command_line({"doctor"}).command, "doctor");
  EXPECT_TRUE(parse_command_line({"doctor", "--json"}).json);

  EXPECT_EQ(parse_command_line({"--version"}).command, "version");
  EXPECT_EQ(parse_command_line({"--help"}).command, "help");
  EXPECT_EQ(parse_command_line({"call", "--help"}).help_of, "call");
  EXPECT_EQ(parse_command_line({"--oneshot", "-h"}).help_of, "oneshot");
}

TEST(CommandLineTest, SaysWhatIsWrong) {
  const std::vector<std::vector<std::string>> kBad = {{},
                                                      {"demon"},
                                                      {"daemon", "x"},
                                                      {"--oneshot"},
                                                      {"call"},
                                                      {"call", "a", "b", "c"},
                                                      {"cat"},
                                                      {"restore", "x"},
                                                      {"cat", "x", "--to", "y"},
                                                      {"daemon", "--syntax-only"},
                                                      {"doctor", "--allow-plain"},
                                                      {"check-config", "--json"},
                                                      {"doctor", "now"},
                                                      {"--what"},
                                                      {"--config"},
                                                      {"--conf", "x", "daemon"}};
  for (const auto& words : kBad) {
    const Error error = test::error_of([&] { parse_command_line(words); });
    EXPECT_EQ(error.code(), Code::invalid_argument);
    EXPECT_FALSE(error.hint().empty());
  }
  EXPECT_THAT(test::error_of([] { parse_command_line({"demon"}); }).hint(), HasSubstr("daemon"));
}

TEST(CommandLineTest, HelpHasExamples) {
  for (const char* command : {"", "daemon", "call", "oneshot", "check-config", "doctor", "cat", "restore"}) {
    EXPECT_THAT(help_text(command), HasSubstr("example")) << command;
  }
  EXPECT_THAT(help_text("oneshot"), HasSubstr("19 FAILED_PRECONDITION"));
  // What the completions and the manual page are made of: a name, its params, and a sentence below.
  const std::string rows = help_text("methods");
  for (const Method& method : methods()) {
    EXPECT_THAT("\n" + rows, HasSubstr("\n" + std::string(method.name)));
    EXPECT_THAT(rows, HasSubstr("\n    " + std::string(method.help) + "\n"));
    EXPECT_TRUE(method.help.ends_with(".")) << method.name;
    EXPECT_NE(method.prepare == nullptr, method.answer == nullptr) << method.name;
    EXPECT_EQ(method.prepare != nullptr, method.is_job()) << method.name;
  }
  EXPECT_THAT(help_text("call"), HasSubstr(rows));
}

TEST(CommandLineTest, ParamsComeFromTextOrFile) {
  const TempDir dir(fs::temp_directory_path(), "params-");
  write_file_atomic(dir.path() / "p.json", "{\"a\":1}", 0600);
  EXPECT_EQ(read_params(""), "{}");
  EXPECT_EQ(read_params("{\"b\":2}"), "{\"b\":2}");
  EXPECT_EQ(read_params("@" + (dir.path() / "p.json").string()), "{\"a\":1}");
  EXPECT_EQ(test::code_of([&] { read_params("@/nonexistent"); }), "NOT_FOUND");
}

}  // namespace
}  // namespace guestagent

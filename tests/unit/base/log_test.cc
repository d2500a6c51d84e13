#include "base/log.h"

#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/journald.h"
#include "base/json.h"

namespace guestagent {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

class LogTest : public testing::Test {
 protected:
  ~LogTest() override { log_setup(LogLevel::info, LogFormat::logfmt); }
  template <typename F>
  std::string captured(F write) {
    testing::internal::CaptureStderr();
    write();
    return testing::internal::GetCapturedStderr();
  }
};

TEST_F(LogTest, IsLogfmt) {
  EXPECT_THAT(captured([] {
                log_info("copy done", {{"bytes", "12"}, {"path", "/a b"}, {"empty", ""}});
              }),
              MatchesRegex("time=[-0-9]*T[0-9:.]*Z level=info msg=\"copy done\" bytes=12 path=\"/a b\" empty=\"\"\n"));
}

TEST_F(LogTest, OneEventIsOneLineWhateverItHolds) {
  const std::string line = captured([] {
    log_error("a\nlevel=info msg=\"forged\"\r\x1B[31m",
              {{"k", "x\ny=\"z\"\\"}, {"utf", "caf\xC3\xA9"}, {"bad", "\xFF"}});
  });
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  EXPECT_EQ(line.find('\x1B'), std::string::npos);
  EXPECT_THAT(line, HasSubstr(R"(msg="a\nlevel=info msg=\"forged\")"));
  EXPECT_THAT(line, HasSubstr(R"( k="x\ny=\"z\"\\" )"));
}

TEST_F(LogTest, IsJsonWhenAsked) {
  log_setup(LogLevel::info, LogFormat::json);
  const std::string line = captured([] {
    const LogScope scope({"job-1", "copy"});
    log_warning("a \"b\"\n", {{"k", "v"}});
  });
  const JsonDocument document = parse_json(line, "line");
  const JsonReader in(document, "line");
  EXPECT_EQ(in.string("level"), "warning");
  EXPECT_EQ(in.string("msg"), "a \"b\"\n");
  EXPECT_EQ(in.string("job_id"), "job-1");
  EXPECT_EQ(in.string("phase"), "copy");
  EXPECT_EQ(in.string("k"), "v");
}

TEST_F(LogTest, LevelsBelowTheChosenAreSilent) {
  log_setup(LogLevel::warning, LogFormat::logfmt);
  EXPECT_EQ(captured([] {
              log_debug("d");
              log_info("i");
            }),
            "");
  EXPECT_THAT(captured([] { log_error("e"); }), HasSubstr("level=error"));
  log_setup(LogLevel::debug, LogFormat::logfmt);
  EXPECT_THAT(captured([] { log_debug("d"); }), HasSubstr("level=debug"));
}

TEST_F(LogTest, ScopesTagTheLinesOfTheirThread) {
  const std::string lines = captured([] {
    const LogScope outer({"job-1", "prepare"});
    {
      const LogScope inner({"job-2", "copy"});
      LogScope::set_phase("verify");
      log_info("inner");
      std::thread([tags = LogScope::current()] {
        log_info("bare thread");
        const LogScope taken_over(tags);
        log_info("worker");
      }).join();
    }
    log_info("outer");
  });
  EXPECT_THAT(lines, HasSubstr("msg=\"inner\" job_id=job-2 phase=verify\n"));
  EXPECT_THAT(lines, HasSubstr("msg=\"bare thread\"\n"));
  EXPECT_THAT(lines, HasSubstr("msg=\"worker\" job_id=job-2 phase=verify\n"));
  EXPECT_THAT(lines, HasSubstr("msg=\"outer\" job_id=job-1 phase=prepare\n"));
  EXPECT_THAT(captured([] { log_info("after"); }), Not(HasSubstr("job_id")));
}

TEST_F(LogTest, KnowsItsLevels) {
  EXPECT_EQ(log_level_from("debug"), LogLevel::debug);
  EXPECT_EQ(log_level_from("error"), LogLevel::error);
  EXPECT_THROW(log_level_from("loud"), Error);
  EXPECT_THROW(log_level_from("INFO"), Error);
}

TEST(Journald, RecognisesItsStream) {
  struct stat info {};
  ASSERT_EQ(::fstat(0, &info), 0);
  const std::string stream = std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino);
  EXPECT_TRUE(is_journal_stream(0, stream.c_str()));
  EXPECT_FALSE(is_journal_stream(0, (stream + "1").c_str()));
  EXPECT_FALSE(is_journal_stream(0, ""));
  EXPECT_FALSE(is_journal_stream(0, nullptr));
}

TEST(Journald, SendsFieldsInTheNativeProtocol) {
  const TempDir dir(fs::temp_directory_path(), "guestagent-journald-");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = (dir.path() / "s").string();
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const UniqueFd server(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_TRUE(Journald(path.c_str()).send({{"MESSAGE", "one"}, {"LONG", "a\nb"}}));
  char buffer[256];
  const ssize_t n = ::recv(server.get(), buffer, sizeof buffer, MSG_DONTWAIT);
  ASSERT_GT(n, 0);
  EXPECT_EQ(std::string(buffer, static_cast<std::size_t>(n)),
            std::string("MESSAGE=one\nLONG\n\x03\0\0\0\0\0\0\0a\nb\n", 12 + 5 + 8 + 4));
  EXPECT_FALSE(Journald((path + "-none").c_str()).send({{"MESSAGE", "x"}}));
}

TEST(Journald, MakesValidFieldNames) {
  EXPECT_EQ(journal_field("job_id"), "JOB_ID");
  EXPECT_EQ(journal_field("a.b-c"), "A_B_C");
  EXPECT_EQ(journal_field("_x"), "F_X");
  EXPECT_EQ(journal_field("9x"), "F9X");
  EXPECT_EQ(journal_field(""), "F");
}

}  // namespace
}  // namespace guestagent

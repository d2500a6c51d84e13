#include "base/journal.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>

#include "base/child.h"
#include "base/error.h"

namespace guestagent {
namespace {

using testing::HasSubstr;

class JournalTest : public testing::Test {
 protected:
  void append(std::string_view bytes) { std::ofstream(path_, std::ios::binary | std::ios::app) << bytes; }
  std::vector<std::string> names() {
    std::vector<std::string> out;
    const Journal journal(path_);
    for (const auto& step : journal.steps()) out.push_back(step.name);
    return out;
  }
  TempDir dir_{fs::temp_directory_path(), "guestagent-journal-"};
  fs::path path_ = dir_.path() / "job.journal";
};

TEST_F(JournalTest, IsReadBack) {
  {
    Journal journal(path_);
    EXPECT_TRUE(journal.steps().empty());
    journal.record("stop server");
    journal.record("move", R"({"from": "/a",
      "to": "/b"})");
    journal.record("move", R"({"from":"/c"})");
    EXPECT_EQ(journal.find("move")->data, R"({"from":"/c"})");
  }
  const Journal again(path_);
  ASSERT_EQ(again.steps().size(), 3u);
  EXPECT_EQ(again.steps()[1].data, R"({"from":"/a","to":"/b"})");
  EXPECT_EQ(again.find("move")->data, R"({"from":"/c"})");
  EXPECT_EQ(again.find("start server"), nullptr);
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
}

TEST_F(JournalTest, EveryCutOfTheLastLineLeavesTheStepsBefore) {
  {
    Journal journal(path_);
    journal.record("one");
    journal.record("two", R"({"k":"v"})");
  }
  const std::string whole = read_file(path_);
  const std::size_t first = whole.find('\n') + 1;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << whole.substr(0, size);
    if (size < first) {
      EXPECT_THAT(names(), testing::IsEmpty()) << size;
    } else {
      EXPECT_THAT(names(), testing::ElementsAre("one")) << size;
    }
    // and what is recorded next is readable
    { Journal(path_).record("three"); }
    EXPECT_EQ(names().back(), "three") << size;
  }
}

TEST_F(JournalTest, ATailOfZerosIsTorn) {
  { Journal(path_).record("one"); }
  append(std::string(4096, '\0'));
  EXPECT_THAT(names(), testing::ElementsAre("one"));
  append("{\"step\":\"tw\x01\n");
  EXPECT_THAT(names(), testing::ElementsAre("one"));
}

TEST_F(JournalTest, RefusesWhatIsNoJournal) {
  const auto refused = [&](std::string_view content) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << content;
    try {
      Journal journal(path_);
      return false;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::data_loss) << content;
      EXPECT_THAT(e.what(), HasSubstr(path_.string()));
      EXPECT_FALSE(e.hint().empty());
      EXPECT_EQ(read_file(path_), content) << "it was changed";
      return true;
    }
  };
  EXPECT_TRUE(refused("hello"));
  EXPECT_TRUE(refused("hello\n"));
  EXPECT_TRUE(refused("{}\n{\"step\":\"a\",\"data\":{}}\n"));
  EXPECT_TRUE(refused("{\"step\":\"a\",\"data\":{}}\ntorn in the middle\n{\"step\":\"b\",\"data\":{}}\n"));
  EXPECT_TRUE(refused("{\"step\":\"a\",\"data\":[]}\n{\"step\":\"b\",\"data\":{}}\n"));
  EXPECT_TRUE(refused("{\"step\":1,\"data\":{}}\n{\"step\":\"b\",\"data\":{}}\n"));
}

TEST_F(JournalTest, TakesNoStepThatCouldNotBeReadBack) {
  Journal journal(path_);
  EXPECT_THROW(journal.record("bad", "[1]"), Error);
  EXPECT_THROW(journal.record("bad", "{"), Error);
  EXPECT_THROW(journal.record("bad", "{}}"), Error);
  EXPECT_THROW(journal.record("bad", R"({"a":1,"a":2})"), Error);
  std::string deep = "{}";
  for (int i = 1; i < 64; ++i) deep = "{\"a\":" + deep + "}";
  EXPECT_THROW(journal.record("bad", deep), Error);
  journal.record("good");
  EXPECT_THAT(names(), testing::ElementsAre("good"));
}

TEST_F(JournalTest, AFailedWriteLeavesNoHalfLine) {
  Journal journal(path_);
  journal.record("one");
  // The file-size limit stands in for a full disk; without the signal the write fails with an error.
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit tight = before;
  tight.rlim_cur = fs::file_size(path_) + 20;
  ::setrlimit(RLIMIT_FSIZE, &tight);
  EXPECT_THROW(journal.record("two", R"({"long":"0123456789012345678901234567890123456789"})"), Error);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, previous);
  EXPECT_EQ(journal.find("two"), nullptr);
  journal.record("three");
  EXPECT_THAT(names(), testing::ElementsAre("one", "three"));
}

TEST_F(JournalTest, CloseRemovesIt) {
  Journal journal(path_);
  journal.record("one");
  journal.close();
  EXPECT_FALSE(fs::exists(path_));
  EXPECT_THROW(journal.record("two"), Error);
  EXPECT_NO_THROW(journal.close());
}

TEST_F(JournalTest, MissingDirectoryIsNamed) {
  try {
    Journal journal(dir_.path() / "no" / "job.journal");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::not_found);
    EXPECT_THAT(e.what(), HasSubstr("no/job.journal"));
  }
}

}  // namespace
}  // namespace guestagent

#include "base/secret.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>
#include <type_traits>

#include "base/error.h"
#include "base/file.h"

namespace guestagent {
namespace {

static_assert(!std::is_convertible_v<Secret, std::string>);
static_assert(!std::is_convertible_v<Secret, std::string_view>);
static_assert(!std::is_constructible_v<std::string, Secret>);

TEST(Secret, IsNeverPrinted) {
  std::ostringstream out;
  out << Secret("hunter2");
  EXPECT_EQ(out.str(), "***");
  EXPECT_EQ(testing::PrintToString(Secret("hunter2")), "***");
}

TEST(Secret, CopiesAndMovesAndCompares) {
  Secret a("one");
  Secret b = a;
  EXPECT_TRUE(a == b);
  Secret c = std::move(b);
  EXPECT_EQ(c.reveal(), "one");
  EXPECT_TRUE(b.empty());  // NOLINT: what a moved-from secret holds is the point
  Secret d("a much longer value that lies on the heap, not inside of the string");
  c = d;
  EXPECT_TRUE(c == d);
  d = std::move(c);
  EXPECT_TRUE(c.empty());
  Secret& self = d;
  d = self;
  EXPECT_THAT(d.reveal(), testing::StartsWith("a much longer"));
}

TEST(Secret, LeavesNothingInItsPlace) {
  alignas(Secret) unsigned char place[sizeof(Secret)];
  auto* secret = new (place) Secret("topsecret");  // short enough to lie in the object itself
  ASSERT_NE(::memmem(place, sizeof place, "topsecret", 9), nullptr);
  secret->~Secret();
  EXPECT_EQ(::memmem(place, sizeof place, "topsec", 6), nullptr);
}

TEST(RandomPassword, HasItsLengthAndAlphabetAndDiffers) {
  std::set<std::string> seen;
  for (int i = 0; i < 200; ++i) {
    const Secret password = random_password(33);
    EXPECT_THAT(password.reveal(), testing::MatchesRegex("[A-Za-z0-9]*"));
    EXPECT_EQ(password.reveal().size(), 33u);
    seen.insert(password.reveal());
  }
  EXPECT_EQ(seen.size(), 200u);
  std::set<char> letters;
  const Secret many = random_password(20000);
  for (const char c : many.reveal()) letters.insert(c);
  EXPECT_EQ(letters.size(), 62u);
  EXPECT_TRUE(random_password(0).empty());
}

TEST(RandomHex, HasTwoDigitsAByte) {
  EXPECT_THAT(random_hex(16), testing::MatchesRegex("[0-9a-f]*"));
  EXPECT_EQ(random_hex(16).size(), 32u);
  EXPECT_NE(random_hex(16), random_hex(16));
}

class SecretFile : public testing::Test {
 protected:
  std::string write(std::string_view content, mode_t mode) {
    const fs::path path = dir_.path() / "secret";
    std::ofstream(path, std::ios::binary) << content;
    ::chmod(path.c_str(), mode);
    return path.string();
  }
  Code code_of(const std::string& path) {
    try {
      secret_from_file(path);
    } catch (const Error& e) {
      EXPECT_EQ(std::string(e.what()).find("hunter2"), std::string::npos);
      EXPECT_NE(std::string(e.what()).find(path), std::string::npos);
      return e.code();
    }
    return Code::internal;
  }
  TempDir dir_{fs::temp_directory_path(), "guestagent-secret-"};
};

TEST_F(SecretFile, IsOneLineOfText) {
  EXPECT_EQ(secret_from_file(write("hunter2", 0600)).reveal(), "hunter2");
  EXPECT_EQ(secret_from_file(write("hunter2\n", 0400)).reveal(), "hunter2");
  EXPECT_EQ(secret_from_file(write("hunter2\r\n", 0640)).reveal(), "hunter2");
  EXPECT_EQ(secret_from_file(write("p\xC3\xA4ss \xFF", 0600)).reveal(), "p\xC3\xA4ss \xFF");
  EXPECT_EQ(secret_from_file(write(" spaced ", 0600)).reveal(), " spaced ");
}

TEST_F(SecretFile, RefusesWhatNobodyMeansAsASecret) {
  using namespace std::string_view_literals;
  for (const std::string_view content :
       {"hunter2\n\n"sv, "hunter2\nhunter3"sv, "hunter2\nhunter3\n"sv, "hunter2\r\nhunter3\r\n"sv, "\nhunter2"sv,
        "hunter2\r\r\n"sv, "hunter2\0"sv, "hun\0ter2\n"sv, "\0"sv, "hunter2\t"sv, "hun\x1Bter2"sv, "hunter2\x7F"sv,
        "\xEF\xBB\xBFhunter2"sv, "\r\n"sv}) {
    EXPECT_EQ(code_of(write(content, 0600)), Code::invalid_argument) << testing::PrintToString(content);
  }
}

TEST_F(SecretFile, RefusesWhatOthersCanReadOrWrite) {
  EXPECT_EQ(code_of(write("hunter2", 0644)), Code::permission_denied);
  EXPECT_EQ(code_of(write("hunter2", 0604)), Code::permission_denied);
  EXPECT_EQ(code_of(write("hunter2", 0602)), Code::permission_denied);
}

TEST_F(SecretFile, RefusesWhatIsNoSecretFile) {
  EXPECT_EQ(code_of((dir_.path() / "missing").string()), Code::not_found);
  EXPECT_EQ(code_of(dir_.path().string()), Code::invalid_argument);
  EXPECT_EQ(code_of(write("", 0600)), Code::invalid_argument);
  EXPECT_EQ(code_of(write("\n", 0600)), Code::invalid_argument);
  EXPECT_EQ(code_of(write(std::string(70000, 'x'), 0600)), Code::invalid_argument);
  const fs::path fifo = dir_.path() / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(code_of(fifo.string()), Code::invalid_argument);  // and does not wait for a writer
}

}  // namespace
}  // namespace guestagent

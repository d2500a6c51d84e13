#include "base/held_dir.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"

namespace guestagent {
namespace {

constexpr uid_t kSomebody = 65534;

class HeldDirTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can make what others own";
    fs::create_directories(victim_ / "inner");
    std::ofstream(victim_ / "keep") << "precious";
    std::ofstream(victim_ / "inner/keep") << "precious";
    ::chmod(victim_.c_str(), 0700);
    fs::create_directories(theirs_);
    ASSERT_EQ(::chown(theirs_.c_str(), kSomebody, kSomebody), 0);
  }
  void TearDown() override { expect_victim_untouched(); }

  void expect_victim_untouched() const {
    struct stat info {};
    ASSERT_EQ(::stat(victim_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0700U);
    EXPECT_EQ(info.st_uid, 0U);
    std::size_t entries = 0;
    for (const auto& entry : fs::recursive_directory_iterator(victim_)) {
      ASSERT_EQ(::lstat(entry.path().c_str(), &info), 0);
      EXPECT_EQ(info.st_uid, 0U) << entry.path();
      ++entries;
    }
    EXPECT_EQ(entries, 3U);
  }
  // A link of somebody else's, in somebody else's directory.
  fs::path lure() {
    const fs::path link = theirs_ / "lure";
    fs::create_directory_symlink(victim_, link);
    EXPECT_EQ(::lchown(link.c_str(), kSomebody, kSomebody), 0);
    return link;
  }
  template <typename F>
  std::string code_of(F&& f) {
    try {
      f();
    } catch (const Error& e) {
      return std::string(code_row(e.code()).wire);
    }
    return "";
  }

  TempDir temp_{fs::temp_directory_path(), "held-"};
  const fs::path top_ = temp_.path(), victim_ = top_ / "victim", theirs_ = top_ / "theirs";
};

TEST_F(HeldDirTest, NothingGoesThroughALinkThatOthersMade) {
  const fs::path link = lure();
  EXPECT_EQ(code_of([&] { open_directory(link, O_RDONLY); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { open_directory(link / "inner", O_RDONLY); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { make_dir(link, 0711); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { make_dir(link / "new", 0711); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { make_dir(link / "new/deep", 0711); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { remove_tree(link / "inner"); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { write_file_atomic(link / "keep", "evil"); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { fsync_dir(link); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { make_own_dir(link, 0711); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { make_own_dir(link / "new", 0711); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { give_dir(link / "inner", kSomebody, kSomebody); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { remove_dir_if_empty(link / "inner"); }), "FAILED_PRECONDITION");
  EXPECT_NE(code_of([&] { give_dir(link, kSomebody, kSomebody); }), "");
  EXPECT_NE(code_of([&] { HeldDir held(link); }), "");
  remove_tree(link);  // the link itself may go
  EXPECT_FALSE(fs::is_symlink(link));
}

TEST_F(HeldDirTest, LinksOfRootsOwnAreFollowed) {
  const fs::path real = top_ / "real", link = top_ / "link";
  fs::create_directories(real);
  fs::create_directory_symlink("real", link);
  make_dir(link / "a/b", 0750);
  EXPECT_TRUE(fs::is_directory(real / "a/b"));
  write_file_atomic(link / "a/f", "x");
  EXPECT_EQ(read_file(real / "a/f"), "x");
  make_dir(link, 0711);
  struct stat info {};
  ASSERT_EQ(::stat(real.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0711U);
  remove_tree(link / "a");
  EXPECT_TRUE(fs::is_empty(real));
  // In a directory where all may add, only root's link is one that nobody can exchange.
  const fs::path shared = top_ / "shared";
  fs::create_directories(shared);
  ASSERT_EQ(::chmod(shared.c_str(), 01777), 0);
  fs::create_directory_symlink(real, shared / "roots");
  fs::create_directory_symlink(victim_, shared / "others");
  ASSERT_EQ(::lchown((shared / "others").c_str(), kSomebody, kSomebody), 0);
  EXPECT_NO_THROW(open_directory(shared / "roots", O_RDONLY));
  EXPECT_EQ(code_of([&] { open_directory(shared / "others", O_RDONLY); }), "FAILED_PRECONDITION");
}

TEST_F(HeldDirTest, AnOwnDirectoryIsRootsAlone) {
  struct Case {
    const char* what;
    std::function<void(const fs::path&)> make;
    bool good;
  };
  const std::vector<Case> cases = {
      {"none", [](const fs::path&) {}, true},
      {"roots", [](const fs::path& p) { fs::create_directory(p); }, true},
      {"somebody's",
       [](const fs::path& p) {
         fs::create_directory(p);
         EXPECT_EQ(::chown(p.c_str(), kSomebody, kSomebody), 0);
       },
       false},
      {"group may write",
       [](const fs::path& p) {
         fs::create_directory(p);
         EXPECT_EQ(::chmod(p.c_str(), 0770), 0);
       },
       false},
      {"others may write",
       [](const fs::path& p) {
         fs::create_directory(p);
         EXPECT_EQ(::chmod(p.c_str(), 0707), 0);
       },
       false},
      {"a file", [](const fs::path& p) { std::ofstream(p) << "x"; }, false},
      {"a link", [&](const fs::path& p) { fs::create_directory_symlink(victim_, p); }, false},
      {"a dangling link", [&](const fs::path& p) { fs::create_symlink(top_ / "nowhere", p); }, false},
  };
  for (const Case& each : cases) {
    const fs::path dir = theirs_ / "own";
    each.make(dir);
    const std::string wanted = each.good ? "" : "FAILED_PRECONDITION";
    EXPECT_EQ(code_of([&] { require_own_dir(dir); }), wanted) << each.what;
    EXPECT_EQ(code_of([&] { make_own_dir(dir, 0711); }), wanted) << each.what;
    EXPECT_FALSE(fs::exists(top_ / "nowhere")) << each.what;
    if (each.good) {
      struct stat info {};
      ASSERT_EQ(::lstat(dir.c_str(), &info), 0);
      EXPECT_EQ(info.st_mode & 07777, 0711U) << each.what;
    }
    remove_tree(dir);
  }
}

TEST_F(HeldDirTest, APlaceIsSafeWhereNobodyElseCanExchangeIt) {
  const fs::path open = top_ / "open", sticky = top_ / "sticky", plain = top_ / "plain";
  for (const fs::path& dir : {open, sticky, plain}) fs::create_directories(dir / "below");
  ASSERT_EQ(::chmod(open.c_str(), 0777), 0);
  ASSERT_EQ(::chmod(sticky.c_str(), 01777), 0);
  fs::create_directories(theirs_ / "below/deep");
  fs::create_directory_symlink(theirs_, top_ / "link");
  struct Case {
    fs::path path;
    bool good;
  };
  const std::vector<Case> cases = {
      {plain / "x", true},          {plain / "below/new/deeper/x", true},
      {sticky / "x", true},         {sticky / "below/x", true},
      {open / "x", false},          {open / "below/x", false},
      {theirs_ / "x", false},       {theirs_ / "below/deep/x", false},
      {theirs_ / "new/x", false},   {top_ / "link/x", false},
      {plain / "../open/x", false}, {theirs_, true},  // itself may be anybody's: its name is not theirs to exchange
  };
  for (const Case& each : cases) {
    EXPECT_EQ(code_of([&] { require_safe_place(each.path); }), each.good ? "" : "FAILED_PRECONDITION") << each.path;
  }
}

TEST_F(HeldDirTest, WhatIsHeldIsNotWhatStandsInItsPlace) {
  const fs::path dir = top_ / "dir";
  fs::create_directories(dir / "a");
  std::ofstream(dir / "a/f") << "one";
  const HeldDir held(dir);
  EXPECT_TRUE(held.stands());
  EXPECT_EQ(held.read("a/f"), "one");
  fs::rename(dir, top_ / "away");
  fs::create_directory_symlink(victim_, dir);
  EXPECT_FALSE(held.stands());
  EXPECT_EQ(code_of([&] { held.require_stands(); }), "FAILED_PRECONDITION");
  EXPECT_EQ(held.read("a/f"), "one");
  EXPECT_EQ(code_of([&] { held.read("keep"); }), "NOT_FOUND");
  held.write("g", "two", 0600, std::make_pair(kSomebody, kSomebody));
  EXPECT_EQ(read_file(top_ / "away/g"), "two");
  held.give(kSomebody, kSomebody, 0750);
  held.clear();
  EXPECT_TRUE(fs::is_empty(top_ / "away"));
  EXPECT_TRUE(held.empty());
  // Another directory of the same name is not it either.
  fs::remove(dir);
  fs::create_directory(dir);
  EXPECT_FALSE(held.stands());
}

TEST_F(HeldDirTest, NoFileIsReadThroughALink) {
  const fs::path dir = top_ / "dir";
  fs::create_directories(dir);
  fs::create_symlink(victim_ / "keep", dir / "file");
  fs::create_directory_symlink(victim_, dir / "sub");
  const HeldDir held(dir);
  EXPECT_NE(code_of([&] { held.read("file"); }), "");
  EXPECT_NE(code_of([&] { held.read("sub/keep"); }), "");
  EXPECT_NE(code_of([&] { held.read("../victim/keep"); }), "");
  EXPECT_NE(code_of([&] { held.read_head("sub/keep", 4); }), "");
  std::vector<std::string> seen;
  held.walk([&](const HeldDir::Entry& entry) { seen.push_back(entry.path.string()); });
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen, (std::vector<std::string>{"file", "sub"}));
  held.clear();
}

}  // namespace
}  // namespace guestagent

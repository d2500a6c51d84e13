#include "base/file.h"

#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "base/child.h"
#include "base/error.h"

namespace guestagent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class FileTest : public testing::Test {
 protected:
  std::vector<std::string> entries(const fs::path& dir) {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(dir)) out.push_back(entry.path().filename().string());
    std::sort(out.begin(), out.end());
    return out;
  }
  unsigned mode_of(const fs::path& path) {
    struct stat info {};
    EXPECT_EQ(::lstat(path.c_str(), &info), 0);
    return info.st_mode & 07777;
  }
  void write(const fs::path& path, std::string_view content) { std::ofstream(path, std::ios::binary) << content; }
  template <typename F>
  Code code_of(F f) {
    try {
      f();
    } catch (const Error& e) {
      message_ = e.what();
      return e.code();
    }
    ADD_FAILURE() << "no error";
    return Code::internal;
  }
  TempDir temp_{fs::temp_directory_path(), "guestagent-file-"};
  fs::path dir_ = temp_.path();
  std::string message_;
};

TEST_F(FileTest, ReadFileReadsAll) {
  const std::string content = std::string("a\0b\n", 4) + std::string(100000, 'x');
  write(dir_ / "f", content);
  EXPECT_EQ(read_file(dir_ / "f"), content);
  EXPECT_EQ(read_file(dir_ / "f", content.size()), content);
  write(dir_ / "empty", "");
  EXPECT_EQ(read_file(dir_ / "empty"), "");
  EXPECT_THAT(read_file("/proc/self/status"), HasSubstr("Name:"));  // its size is said to be 0
}

TEST_F(FileTest, ReadFileSaysWhy) {
  write(dir_ / "f", "12345");
  EXPECT_EQ(code_of([&] { read_file(dir_ / "f", 4); }), Code::resource_exhausted);
  EXPECT_THAT(message_, HasSubstr((dir_ / "f").string()));
  EXPECT_EQ(code_of([&] { read_file("/proc/self/status", 10); }), Code::resource_exhausted);
  EXPECT_EQ(code_of([&] { read_file(dir_ / "none"); }), Code::not_found);
  EXPECT_EQ(code_of([&] { read_file(dir_); }), Code::invalid_argument);
}

TEST_F(FileTest, WriteFileAtomicReplacesContentAndMode) {
  const mode_t before = ::umask(077);
  write_file_atomic(dir_ / "f", "one", 0644);
  EXPECT_EQ(mode_of(dir_ / "f"), 0644u);
  ::umask(0);
  write_file_atomic(dir_ / "f", "two", 0600);
  ::umask(before);
  EXPECT_EQ(mode_of(dir_ / "f"), 0600u);
  EXPECT_EQ(read_file(dir_ / "f"), "two");
  EXPECT_THAT(entries(dir_), ElementsAre("f"));
}

TEST_F(FileTest, AFailedWriteLeavesTheOldFileAndNothingElse) {
  write_file_atomic(dir_ / "f", "old");
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit tight = before;
  tight.rlim_cur = 1000;
  ::setrlimit(RLIMIT_FSIZE, &tight);
  EXPECT_EQ(code_of([&] { write_file_atomic(dir_ / "f", std::string(5000, 'x')); }), Code::resource_exhausted);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, previous);
  EXPECT_EQ(read_file(dir_ / "f"), "old");
  EXPECT_THAT(entries(dir_), ElementsAre("f"));
}

TEST_F(FileTest, AFailedRenameLeavesNothing) {
  fs::create_directory(dir_ / "d");
  code_of([&] { write_file_atomic(dir_ / "d", "x"); });
  EXPECT_THAT(entries(dir_), ElementsAre("d"));
  EXPECT_EQ(code_of([&] { write_file_atomic(dir_ / "no" / "f", "x"); }), Code::not_found);
}

TEST_F(FileTest, WriteFileAtomicReplacesALinkNotItsTarget) {
  write(dir_ / "target", "precious");
  fs::create_symlink("target", dir_ / "link");
  write_file_atomic(dir_ / "link", "new");
  EXPECT_EQ(read_file(dir_ / "target"), "precious");
  EXPECT_FALSE(fs::is_symlink(dir_ / "link"));
}

TEST_F(FileTest, MakeDirSetsTheModeOfTheLastOne) {
  make_dir(dir_ / "a" / "b" / "c", 0700);
  EXPECT_EQ(mode_of(dir_ / "a" / "b" / "c"), 0700u);
  make_dir(dir_ / "a" / "b" / "c/", 0750);
  EXPECT_EQ(mode_of(dir_ / "a" / "b" / "c"), 0750u);
  write(dir_ / "f", "");
  code_of([&] { make_dir(dir_ / "f"); });
  EXPECT_THAT(message_, HasSubstr("creating the directory"));
  code_of([&] { make_dir(dir_ / "f" / "below"); });
}

TEST_F(FileTest, RemoveTreeRemovesEverythingAndFollowsNothing) {
  fs::create_directories(dir_ / "outside");
  write(dir_ / "outside" / "precious", "x");
  fs::create_directories(dir_ / "tree" / "a" / "b");
  write(dir_ / "tree" / "a" / "b" / "f", "x");
  write(dir_ / "tree" / "a" / "read-only", "x");
  ::chmod((dir_ / "tree" / "a" / "read-only").c_str(), 0);
  fs::create_directory_symlink(dir_ / "outside", dir_ / "tree" / "link");
  fs::create_symlink("nowhere", dir_ / "tree" / "a" / "dangling");
  ASSERT_EQ(::mkfifo((dir_ / "tree" / "fifo").c_str(), 0600), 0);
  remove_tree(dir_ / "tree/");
  EXPECT_THAT(entries(dir_), ElementsAre("outside"));
  EXPECT_TRUE(fs::exists(dir_ / "outside" / "precious"));
}

TEST_F(FileTest, RemoveTreeOfALinkRemovesTheLink) {
  fs::create_directories(dir_ / "outside");
  write(dir_ / "outside" / "precious", "x");
  fs::create_directory_symlink(dir_ / "outside", dir_ / "link");
  remove_tree(dir_ / "link");
  EXPECT_TRUE(fs::exists(dir_ / "outside" / "precious"));
  EXPECT_FALSE(fs::is_symlink(dir_ / "link"));
}

TEST_F(FileTest, RemoveTreeOfWhatIsGoneIsNoError) {
  EXPECT_NO_THROW(remove_tree(dir_ / "none"));
  EXPECT_NO_THROW(remove_tree(dir_ / "none" / "below"));
  write(dir_ / "f", "");
  EXPECT_NO_THROW(remove_tree(dir_ / "f"));
  EXPECT_THAT(entries(dir_), ElementsAre());
}

TEST_F(FileTest, RemoveTreeRefusesNamesOfNothing) {
  for (const char* name : {"", "/", ".", "..", "//", "a/../.."}) {
    EXPECT_EQ(code_of([&] { remove_tree(name); }), Code::invalid_argument) << name;
  }
}

TEST_F(FileTest, RemoveTreeSurvivesADeepTree) {
  fs::path deep = dir_ / "deep";
  fs::create_directory(deep);
  const fs::path before = fs::current_path();
  fs::current_path(deep);
  for (int i = 0; i < 1500; ++i) {
    ASSERT_EQ(::mkdir("directory", 0700), 0);
    ASSERT_EQ(::chdir("directory"), 0);
  }
  fs::current_path(before);
  // Deeper than there are descriptors and longer than a path may be: removed or refused, but no crash.
  try {
    remove_tree(deep);
    EXPECT_FALSE(fs::exists(deep));
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("removing"));
    std::system(("rm -rf '" + deep.string() + "'").c_str());
  }
}

TEST_F(FileTest, RemoveTreeDoesNotCrossMounts) {
  fs::create_directories(dir_ / "tree" / "mounted");
  fs::create_directories(dir_ / "tree" / "other");
  fs::create_directories(dir_ / "source");
  write(dir_ / "source" / "precious", "x");
  write(dir_ / "tree" / "other" / "f", "x");
  // A bind mount has the device number of the tree around it.
  if (::mount((dir_ / "source").c_str(), (dir_ / "tree" / "mounted").c_str(), nullptr, MS_BIND, nullptr) != 0) {
    GTEST_SKIP() << "mounting is not permitted here";
  }
  const Code code = code_of([&] { remove_tree(dir_ / "tree"); });
  const Code code_itself = code_of([&] { remove_tree(dir_ / "tree" / "mounted"); });
  ::umount2((dir_ / "tree" / "mounted").c_str(), MNT_DETACH);
  EXPECT_EQ(code, Code::failed_precondition);
  EXPECT_EQ(code_itself, Code::failed_precondition);
  EXPECT_THAT(message_, HasSubstr("mounted"));
  EXPECT_TRUE(fs::exists(dir_ / "source" / "precious"));
  EXPECT_FALSE(fs::exists(dir_ / "tree" / "other")) << "the rest goes all the same";
}

TEST_F(FileTest, SizesAreOfRegularFilesBelow) {
  fs::create_directories(dir_ / "a" / "b");
  write(dir_ / "a" / "f", std::string(1000, 'x'));
  write(dir_ / "a" / "b" / "g", std::string(234, 'x'));
  fs::create_symlink("/etc", dir_ / "a" / "link");
  EXPECT_EQ(tree_bytes(dir_ / "a"), 1234u);
  fs::create_symlink("a", dir_ / "root-link");
  EXPECT_EQ(tree_bytes(dir_ / "root-link"), 1234u);
  EXPECT_EQ(code_of([&] { tree_bytes(dir_ / "none"); }), Code::not_found);
}

TEST_F(FileTest, SizesOfATreeThatChangesMeanwhile) {
  std::jthread writer([&](std::stop_token stop) {
    for (int i = 0; !stop.stop_requested(); ++i) {
      const fs::path file = dir_ / ("d" + std::to_string(i % 7)) / "f";
      fs::create_directory(file.parent_path());
      write(file, "1234");
      fs::remove_all(file.parent_path());
    }
  });
  for (int i = 0; i < 300; ++i) EXPECT_LE(tree_bytes(dir_), 28u);
}

TEST_F(FileTest, SpaceIsThatOfTheNearestParent) {
  EXPECT_GT(volume_bytes(dir_), 0u);
  EXPECT_GE(volume_bytes(dir_), free_bytes(dir_));
  EXPECT_EQ(volume_bytes(dir_ / "not" / "yet" / "there"), volume_bytes(dir_));
  EXPECT_GT(volume_bytes("not-there"), 0u);
}

TEST_F(FileTest, FsyncTreeReachesEverythingOrSaysWhere) {
  fs::create_directories(dir_ / "a" / "b");
  write(dir_ / "a" / "b" / "g", "x");
  fs::create_symlink("nowhere", dir_ / "a" / "dangling");
  ASSERT_EQ(::mkfifo((dir_ / "a" / "fifo").c_str(), 0600), 0);
  EXPECT_NO_THROW(fsync_tree(dir_));
  EXPECT_NO_THROW(fsync_file(dir_ / "a" / "b" / "g"));
  EXPECT_EQ(code_of([&] { fsync_tree(dir_ / "none"); }), Code::not_found);
  EXPECT_EQ(code_of([&] { fsync_file(dir_ / "none"); }), Code::not_found);
  EXPECT_EQ(code_of([&] { fsync_dir(dir_ / "none"); }), Code::not_found);
}

TEST_F(FileTest, LockIsHeldAgainstThisAndOtherProcesses) {
  const fs::path path = dir_ / "lock";
  const std::string other = "flock -n '" + path.string() + "' true && echo free || echo held";
  {
    const auto lock = FileLock::try_take(path, "job-7");
    ASSERT_TRUE(lock);
    EXPECT_EQ(read_file(path), "job-7");
    EXPECT_FALSE(FileLock::try_take(path, "job-8"));
    EXPECT_EQ(read_file(path), "job-7") << "the refused one wrote into it";
    EXPECT_EQ(run_and_read({.argv = {"sh", "-c", other}}, Millis(60000)), "held\n");
  }
  EXPECT_EQ(run_and_read({.argv = {"sh", "-c", other}}, Millis(60000)), "free\n");
  EXPECT_TRUE(fs::exists(path));
  EXPECT_TRUE(FileLock::try_take(path));
  EXPECT_EQ(read_file(path), "pid " + std::to_string(::getpid()));
}

TEST_F(FileTest, LockOfAnotherProcessIsRespectedAndEndsWithIt) {
  const fs::path path = dir_ / "lock";
  Child holder({.argv = {"flock", path.string(), "sh", "-c", "echo locked; exec sleep 1000"}, .pipe_stdout = true});
  char byte = 0;
  ASSERT_EQ(::read(holder.stdout_fd(), &byte, 1), 1);
  EXPECT_FALSE(FileLock::try_take(path));
  holder.kill_group(SIGKILL);
  holder.wait();
  EXPECT_TRUE(FileLock::try_take(path));
}

TEST_F(FileTest, LookingAtALockDisturbsNobody) {
  const fs::path path = dir_ / "lock";
  EXPECT_FALSE(FileLock::is_taken(path)) << "there is no such file";
  EXPECT_FALSE(fs::exists(path));
  { EXPECT_TRUE(FileLock::try_take(path)); }
  std::vector<std::jthread> lookers;
  for (int i = 0; i < 3; ++i) {
    lookers.emplace_back([&](std::stop_token stop) {
      for (; !stop.stop_requested(); std::this_thread::sleep_for(Millis(1))) FileLock::is_taken(path);
    });
  }
  int refused = 0, seen = 0;
  for (int i = 0; i < 5000; ++i) {
    seen += FileLock::is_taken(path) ? 1 : 0;
    refused += FileLock::try_take(path) ? 0 : 1;
  }
  EXPECT_EQ(seen, 0) << "nobody held it";
  EXPECT_EQ(refused, 0) << "those who look do not hold it";
  lookers.clear();
  const auto lock = FileLock::try_take(path);
  EXPECT_TRUE(FileLock::is_taken(path));
}

TEST_F(FileTest, LockIsNotInheritedByChildren) {
  const fs::path path = dir_ / "lock";
  auto lock = FileLock::try_take(path);
  Child child({.argv = {"sleep", "1000"}});
  lock.reset();
  EXPECT_TRUE(FileLock::try_take(path));
}

TEST_F(FileTest, TempDirGoesWithItsObject) {
  fs::path path;
  {
    TempDir temp(dir_, "work-");
    path = temp.path();
    EXPECT_EQ(mode_of(path), 0700u);
    EXPECT_THAT(path.filename().string(), testing::StartsWith("work-"));
    write(path / "f", "x");
    const TempDir moved(std::move(temp));
    EXPECT_EQ(moved.path(), path);
  }
  EXPECT_FALSE(fs::exists(path));
  {
    TempDir temp(dir_, "kept-");
    path = temp.release();
  }
  EXPECT_TRUE(fs::exists(path));
  EXPECT_EQ(code_of([&] { TempDir(dir_ / "none", "x-"); }), Code::not_found);
}

}  // namespace
}  // namespace guestagent

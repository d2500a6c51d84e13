// A copy received by scripted tools: as whom they run, what they are given, and what happens when they or others
// misbehave.
#include "strategies/mysql/install/receive.h"

#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"
#include "strategies/mysql/copy/ready_record.h"
#include "strategies/mysql/host/tree_move.h"
#include "tests/support/bytes.h"
#include "tests/support/errors.h"
#include "tests/support/test_job.h"
#include "tests/support/xbstream.h"

namespace guestagent::mysql {
namespace {

using test::error_of;
using test::StringSource;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kInfo =
    "uuid = 1\nname = \ntool_name = mariabackup\ntool_command = x\ntool_version = 10.11.19-MariaDB\nibbackup_version = "
    "10.11.19-MariaDB\n"
    "server_version = 10.11.19-MariaDB\nstart_time = 2026-01-01 00:00:00\nend_time = 2026-01-01 00:00:01\nlock_time = "
    "0\nbinlog_pos = \n"
    "innodb_from_lsn = 0\ninnodb_to_lsn = 1\npartial = N\nincremental = N\nformat = xbstream\ncompressed = N\n";
constexpr const char* kCheckpoints = "backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 1\nlast_lsn = 1\n";

template <typename T>
std::string bytes_of(T value) {
  std::string out;
  for (std::size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(value >> (8 * i) & 0xff);
  return out;
}
std::string chunk_head(char type, const std::string& path, char flags = 0) {
  return std::string("XBSTCK01") + flags + type + bytes_of(static_cast<std::uint32_t>(path.size())) + path;
}
std::string stream_file(const std::string& path, const std::string& content) {
  return test::xbstream_data(path, content) + chunk_head('E', path);
}

class ReceiveTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can run tools as somebody else";
    ASSERT_EQ(::chmod(top_.path().c_str(), 0755), 0);
    fs::create_directories(copy_ / "d");
    fs::create_directories(settings_.tools_dir = top_.path() / "tools");
    fs::create_directories(settings_.data_dir = top_.path() / "live");
    fs::create_directories(victim_);
    std::ofstream(victim_ / "keep.txt") << "precious";
    ASSERT_EQ(::chmod(victim_.c_str(), 0700), 0);
    settings_.os_user = "nobody";
    settings_.backup_tool = "mariadb-backup";
    settings_.defaults_file = top_.path() / "my.cnf";
    settings_.server.command = {"mariadbd", "--plugin-dir=/own/plugins"};
    copy("xtrabackup_info", kInfo);
    copy("xtrabackup_checkpoints", kCheckpoints);
    copy("backup-my.cnf", "[mysqld]\ninnodb_page_size=16384\n");
    copy("ibdata1", "data");
    copy("d/t.ibd", "data");
    tool("mariadb-backup",
         "case \"$*\" in *--version*) echo 'mariadb-backup based on MariaDB server 10.11.19-MariaDB Linux (x86_64)' "
         ">&2; exit 0;; esac\n"
         "dir=${2#--target-dir=}\nid -u > " +
             seen("prepare") + "\ncp \"$dir/backup-my.cnf\" " + seen("cnf") +
             "\n"
             "sed -i s/full-backuped/log-applied/ \"$dir/xtrabackup_checkpoints\"\necho 'completed OK!' >&2\n");
    ASSERT_EQ(::chmod(fs::path(seen("x")).parent_path().c_str(), 01777), 0);
    ASSERT_EQ(::chmod(copy_.c_str(), 0755), 0);
  }

  std::string seen(const std::string& name) {
    fs::create_directories(top_.path() / "seen");
    return (top_.path() / "seen" / name).string();
  }
  std::string seen_text(const std::string& name) { return read_file(seen(name)); }
  void copy(const std::string& name, const std::string& content) {
    std::ofstream(copy_ / name, std::ios::binary) << content;
  }
  void tool(const std::string& name, const std::string& script) {
    std::ofstream(settings_.tools_dir / name) << "#!/bin/sh\nset -e\n" << script;
    fs::permissions(settings_.tools_dir / name, fs::perms(0755));
  }
  // The stream of what is in copy_.
  std::string stream_of_copy() {
    std::string out;
    for (const auto& entry : fs::recursive_directory_iterator(copy_)) {
      if (entry.is_regular_file()) out += stream_file(fs::relative(entry.path(), copy_), read_file(entry.path()));
    }
    return out;
  }
  void receive() { receive(stream_of_copy()); }
  std::uint64_t receive(std::string stream, const std::string& digest = "sha256:1", std::uint64_t piece = 100) {
    StringSource source(std::move(stream), 1000);
    PiecesOf pieces(source, {"xbstream", "mariadb-backup 10.11.19", digest}, piece);
    return receive_copy(pieces, to_, settings_, job_);
  }
  void prepare_tool(const std::string& script) {
    tool("mariadb-backup",
         "case \"$*\" in *--version*) echo 'mariadb-backup based on MariaDB server 10.11.19-MariaDB Linux (x86_64)' "
         ">&2; exit 0;; esac\n"
         "set -- x x ${2#--target-dir=}\nsed -i s/full-backuped/log-applied/ \"$3/xtrabackup_checkpoints\"\n" +
             script + "echo 'completed OK!' >&2\n");
  }
  void expect_nothing_happened() {
    EXPECT_EQ(read_file(victim_ / "keep.txt"), "precious");
    struct stat info {};
    ASSERT_EQ(::stat(victim_.c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, 0U);
    EXPECT_EQ(info.st_mode & 07777, 0700U);
    ASSERT_EQ(::stat((victim_ / "keep.txt").c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, 0U);
  }

  TempDir top_{fs::temp_directory_path(), "receive-"};
  const fs::path copy_ = top_.path() / "copy", to_ = top_.path() / "to", victim_ = top_.path() / "victim";
  const uid_t server_ = ::getpwnam("nobody")->pw_uid;
  MysqlSettings settings_;
  test::TestJob job_;
};

TEST_F(ReceiveTest, TheToolRunsAsTheServersUser) {
  receive();
  EXPECT_EQ(seen_text("prepare"), std::to_string(server_) + "\n");
  for (const char* name : {"", "ibdata1", "d", "d/t.ibd"}) {
    struct stat info {};
    ASSERT_EQ(::lstat((to_ / name).c_str(), &info), 0) << name;
    EXPECT_EQ(info.st_uid, server_) << name;
    EXPECT_EQ(info.st_mode & 07777, S_ISDIR(info.st_mode) ? 0700U : 0660U) << name;
  }
}

TEST_F(ReceiveTest, ADirectoryThatTheServersUserCannotReachIsSaid) {
  ASSERT_EQ(::chmod(top_.path().c_str(), 0700), 0);
  const Error error = error_of([&] { receive(); });
  EXPECT_EQ(error.code(), Code::permission_denied);
  EXPECT_THAT(error.hint(), HasSubstr("nobody"));
}

TEST_F(ReceiveTest, TheCopysOptionsAreWrittenAnew) {
  copy("backup-my.cnf", "[mysqld]\ninnodb_page_size=16384\ntmpdir=/x\ninnodb_undo_directory=/etc\n");
  receive();
  EXPECT_THAT(seen_text("cnf"), HasSubstr("innodb_page_size=16384\n"));
  EXPECT_THAT(seen_text("cnf"), Not(HasSubstr("/etc")));
  EXPECT_THAT(seen_text("cnf"), Not(HasSubstr("tmpdir")));
}

TEST_F(ReceiveTest, NothingIsLoadedThatTheCopyNames) {
  for (const char* line : {"plugin_load=evil.so\nplugin_dir=.\n", "plugin-load-add=x\n", "!include /tmp/x\n"}) {
    copy("backup-my.cnf", std::string("[mysqld]\n") + line);
    EXPECT_EQ(error_of([&] { receive(); }).code(), Code::data_loss) << line;
    EXPECT_FALSE(fs::exists(seen("prepare"))) << line;
    EXPECT_TRUE(fs::is_empty(to_)) << line;
  }
}

TEST_F(ReceiveTest, KeysAreThisHostsAndDoNotStay) {
  copy("backup-my.cnf",
       "[mysqld]\nplugin_load=file_key_management\nplugin_dir=/evil\nfile_key_management_filename=/evil/keys\n");
  std::ofstream(settings_.defaults_file) << "[mysqld]\nfile_key_management_filename=/own/keys\n";
  receive();
  EXPECT_THAT(seen_text("cnf"), HasSubstr("plugin_dir=\"/own/plugins\"\nfile_key_management_filename=\"/own/keys\"\n"));
  EXPECT_THAT(seen_text("cnf"), Not(HasSubstr("evil")));
  EXPECT_THAT(read_file(to_ / "backup-my.cnf"), Not(HasSubstr("keys")));
}

TEST_F(ReceiveTest, NamesThatNoCopyHasAreRefused) {
  for (const std::string name : {"../evil", "/etc/evil", "evil.so", ".my.cnf", "d/.x", "a/b/c/d/e/f", "ibdata1/x"}) {
    EXPECT_EQ(error_of([&] { receive(stream_file("ibdata1", "data") + stream_file(name, "evil")); }).code(),
              Code::data_loss)
        << name;
    EXPECT_TRUE(fs::is_empty(to_)) << name;
  }
  const auto move = [](const std::string& from, const std::string& to) {
    return chunk_head('R', from) + bytes_of(static_cast<std::uint32_t>(to.size())) + to;
  };
  const std::vector<std::string> leading_out = {move("ibdata1", "../evil"),   move("../evil", "x"),
                                                move("ibdata1", "/etc/evil"), move("ibdata1", "evil.so"),
                                                chunk_head('D', "../evil"),   chunk_head('D', "/etc/evil")};
  for (const std::string& chunk : leading_out) {
    EXPECT_EQ(error_of([&] { receive(stream_file("ibdata1", "data") + chunk + stream_file("z", "z")); }).code(),
              Code::data_loss)
        << chunk;
    EXPECT_TRUE(fs::is_empty(to_)) << chunk;
  }
  // What two readers could understand differently is no stream at all.
  const std::string good = stream_file("ibdata1", "data");
  for (const std::string& bad : {good + "x", good.substr(0, good.size() - 1), good + good, chunk_head('Q', "a") + good,
                                 chunk_head('S', "a", 3) + good, test::xbstream_data("ibdata1", "data")}) {
    EXPECT_EQ(error_of([&] { receive(bad); }).code(), Code::data_loss);
    EXPECT_TRUE(fs::is_empty(to_));
  }
}

TEST_F(ReceiveTest, WhatWasExtractedIsLookedAtToo) {
  const auto refused = [&](const std::string& name, const std::string& content) {
    copy(name, content);
    const Error error = error_of([&] { receive(); });
    EXPECT_FALSE(fs::exists(seen("prepare"))) << name;
    EXPECT_TRUE(fs::is_empty(to_)) << name;
    fs::remove(copy_ / name);
    return error.code();
  };
  EXPECT_EQ(refused("d/u.isl", "/x"), Code::failed_precondition);
  EXPECT_EQ(refused("d/r1.frm", "\376\001\012\052"), Code::data_loss);
}

TEST_F(ReceiveTest, WhatTheToolMadeIsLookedAtToo) {
  struct Case {
    const char* what;
    std::string script;
    Code code;
  };
  const std::vector<Case> cases = {
      {"library", "touch \"$3/d/evil.so\"\n", Code::data_loss},
      {"hidden", "touch \"$3/.my.cnf\"\n", Code::data_loss},
      {"set user id", "chmod 4755 \"$3/ibdata1\"\n", Code::data_loss},
      {"second name", "ln \"$3/ibdata1\" \"$3/ibdata2\"\n", Code::data_loss},
      {"pipe", "mkfifo \"$3/pipe\"\n", Code::data_loss},
      {"link", "ln -s /etc/passwd \"$3/d/u.ibd\"\n", Code::failed_precondition},
  };
  for (const Case& each : cases) {
    prepare_tool(each.script);
    const Error error = error_of([&] { receive(); });
    EXPECT_EQ(error.code(), each.code) << each.what << ": " << error.what();
    EXPECT_TRUE(fs::is_empty(to_)) << each.what;
  }
  EXPECT_EQ(read_file("/etc/passwd").find("root"), 0U);
}

TEST_F(ReceiveTest, ADirectoryThatIsExchangedLeadsRootNowhere) {
  settings_.os_user = "root";  // whose tool could do it
  prepare_tool("mv \"$3\" " + (top_.path() / "away").string() + "\nln -s " + victim_.string() + " \"$3\"\n");
  EXPECT_EQ(error_of([&] { receive(); }).code(), Code::failed_precondition);
  EXPECT_TRUE(fs::is_empty(top_.path() / "away"));
  expect_nothing_happened();
}

// The store goes away after some bytes.
class Broken : public StringSource {
 public:
  Broken(const std::string& text, Code code) : StringSource(text, 1000), code_(code) {}
  std::size_t read(std::span<std::byte> into) override {
    const std::size_t n = StringSource::read(into);
    if (n == 0) throw Error(code_, "the store is gone");
    return n;
  }

 private:
  Code code_;
};

TEST_F(ReceiveTest, WhatWasFetchedStaysForTheNextTryWhereThatCanHelp) {
  const std::string chunk = test::xbstream_data("a.ibd", std::string(60, 'a'));
  const std::string all = chunk + chunk_head('E', "a.ibd") + stream_of_copy();
  const auto one_piece_by = [&](Code code, const std::string& digest) {
    Broken source(chunk, code);
    PiecesOf pieces(source, {"xbstream", "mariadb-backup 10.11.19", digest}, chunk.size());
    return error_of([&] { receive_copy(pieces, to_, settings_, job_); }).code();
  };
  for (const Code code : {Code::cancelled, Code::data_loss, Code::resource_exhausted, Code::internal}) {
    EXPECT_EQ(one_piece_by(code, "sha256:1"), code);
    EXPECT_TRUE(fs::is_empty(to_));
    EXPECT_FALSE(is_staged(to_));
  }
  EXPECT_EQ(one_piece_by(Code::unavailable, "sha256:1"), Code::unavailable);
  EXPECT_TRUE(is_staged(to_));
  // Another stream has nothing to do with it, and does not touch it.
  EXPECT_EQ(error_of([&] { receive(all, "sha256:2", chunk.size()); }).code(), Code::failed_precondition);
  EXPECT_TRUE(is_staged(to_));
  // Nor does anything that others could have put there.
  ASSERT_EQ(::chmod(to_.c_str(), 0777), 0);
  EXPECT_FALSE(is_staged_for(to_, {"xbstream", "mariadb-backup 10.11.19", "sha256:1"}));
  EXPECT_EQ(error_of([&] { receive(all, "sha256:1", chunk.size()); }).code(), Code::failed_precondition);
  ASSERT_EQ(::chmod(to_.c_str(), 0700), 0);
  receive(all, "sha256:1", chunk.size());
  EXPECT_EQ(read_file(to_ / "a.ibd"), std::string(60, 'a'));
  EXPECT_FALSE(is_staged(to_));
}

TEST_F(ReceiveTest, AStagedCopyIsUsedOnlyAsItWas) {
  const PieceSource::Kind kind{"xbstream", "mariadb-backup 10.11.19", "sha256:1"};
  const std::string stream = stream_of_copy();
  const auto stage = [&] {
    receive(stream);
    keep_ready(to_, kind, job_);
    fs::remove(seen("prepare"));
  };
  // Answers whether it was taken as it lay there.
  const auto taken = [&] {
    receive(stream);
    const bool prepared = fs::exists(seen("prepare"));
    EXPECT_EQ(read_file(to_ / "ibdata1"), "data");
    EXPECT_FALSE(fs::exists(to_ / "stranger.ibd"));
    forget_staged(to_);
    remove_tree(to_);
    return !prepared;
  };
  stage();
  struct stat info {};
  ASSERT_EQ(::stat(to_.c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, ::geteuid());
  EXPECT_EQ(info.st_mode & 07777, 0700U) << "closed to the server's user";
  EXPECT_TRUE(is_staged_for(to_, kind));
  EXPECT_FALSE(is_staged_for(to_, {"xbstream", "", "sha256:2"}));
  EXPECT_TRUE(taken());
  const std::vector<std::function<void()>> damage = {
      [&] { std::ofstream(to_ / "ibdata1") << "dAta"; },
      [&] { fs::resize_file(to_ / "ibdata1", 3); },
      [&] { fs::resize_file(to_ / "ibdata1", 5); },
      [&] { fs::remove(to_ / "d/t.ibd"); },
      [&] { std::ofstream(to_ / "stranger.ibd") << "x"; },
      [&] { std::ofstream(ready_record_path(to_), std::ios::app) << "x"; },
  };
  for (std::size_t i = 0; i < damage.size(); ++i) {
    stage();
    damage[i]();
    EXPECT_FALSE(taken()) << i;
  }
}

TEST_F(ReceiveTest, AMoveFollowsNoLinkOfTheServersUser) {
  const fs::path theirs = top_.path() / "theirs", old = top_.path() / "old";
  fs::create_directories(theirs);
  fs::create_directories(old);
  std::ofstream(old / "keep.txt") << "old data";
  fs::create_directory_symlink(victim_, theirs / "previous");
  ASSERT_EQ(::lchown((theirs / "previous").c_str(), server_, server_), 0);
  ASSERT_EQ(::chown(theirs.c_str(), server_, server_), 0);
  EXPECT_EQ(error_of([&] { move_entry(old, theirs / "previous", "keep.txt"); }).code(), Code::failed_precondition);
  EXPECT_EQ(error_of([&] { move_entry(theirs / "previous", old, "keep.txt"); }).code(), Code::failed_precondition);
  EXPECT_EQ(error_of([&] { copy_tree(old / "keep.txt", theirs / "previous/new"); }).code(), Code::failed_precondition);
  EXPECT_EQ(error_of([&] { copy_tree(theirs / "previous/keep.txt", old / "new"); }).code(), Code::failed_precondition);
  EXPECT_EQ(error_of([&] { remove_move_leftovers(theirs / "previous"); }).code(), Code::failed_precondition);
  EXPECT_EQ(read_file(old / "keep.txt"), "old data");
  expect_nothing_happened();
}

}  // namespace
}  // namespace guestagent::mysql

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "strategies/mysql/copy/backup_tools.h"
#include "strategies/mysql/copy/clone_copy.h"
#include "strategies/mysql/follow/replica_start.h"
#include "strategies/mysql/install/receive.h"
#include "stream/tar.h"
#include "tests/support/bytes.h"
#include "tests/support/errors.h"
#include "tests/support/test_job.h"

namespace guestagent::mysql {
namespace {

using test::code_of;
using test::error_of;
using test::StringSource;

ServerVersion version(std::string_view text) {
  return parse_datastore_version(text);
}

class Clone : public testing::Test {
 protected:
  Clone() : top_(fs::temp_directory_path(), "clone-") {
    fs::create_directories(top_.path() / "tools");
    settings_.tools_dir = top_.path() / "tools";
    settings_.data_dir = top_.path() / "live";
    settings_.os_user = "root";
    fs::create_directories(settings_.data_dir);
    for (const std::string name : {"ibdata1", "mysql.ibd", "undo_001", "lab/t.ibd", "#innodb_redo/#ib_redo0"}) {
      fs::create_directories((data() / name).parent_path());
      std::ofstream(data() / name) << "content of " << name;
    }
  }
  fs::path data() const { return top_.path() / "source"; }
  fs::path to() const { return top_.path() / "to"; }
  void write_tool(const std::string& name, const std::string& says) {
    const fs::path path = settings_.tools_dir / name;
    std::ofstream(path) << "#!/bin/sh\necho '" << says << "'\n";
    fs::permissions(path, fs::perms::owner_all);
  }
  std::string archive() {
    const auto source = tar_directory(data());
    std::string out;
    std::vector<std::byte> block(65536);
    for (std::size_t n = 0; (n = source->read(block)) != 0;) out.append(reinterpret_cast<const char*>(block.data()), n);
    return out;
  }
  void receive(std::string bytes) {
    StringSource source(std::move(bytes), 1000);
    PiecesOf pieces(source, {"tar", "clone", ""});
    receive_copy(pieces, to(), settings_, job_);
  }

  TempDir top_;
  MysqlSettings settings_;
  test::TestJob job_;
};

TEST_F(Clone, IsChosenWhereNoToolFits) {
  EXPECT_EQ(choose_tool(settings_, version("mysql-9.7.4")).name, "clone");
  EXPECT_EQ(choose_tool(settings_, version("mysql-8.0.17")).name, "clone");
  EXPECT_EQ(choose_tool(settings_, version("percona-8.4.3")).name, "clone");
  EXPECT_EQ(code_of([&] { choose_tool(settings_, version("mysql-8.0.16")); }), "NOT_FOUND");
  EXPECT_EQ(code_of([&] { choose_tool(settings_, version("mysql-5.7.44")); }), "NOT_FOUND");
  EXPECT_EQ(code_of([&] { choose_tool(settings_, version("mariadb-11.8.6")); }), "NOT_FOUND");
  // A tool of another series leaves the choice to the plugin, one of the server's series is preferred to it.
  write_tool("xtrabackup", "xtrabackup version 8.0.35-31 based on MySQL server 8.0.35 Linux (x86_64)");
  EXPECT_EQ(choose_tool(settings_, version("mysql-9.7.4")).name, "clone");
  EXPECT_EQ(choose_tool(settings_, version("mysql-8.0.36")).name, "xtrabackup");
}

TEST_F(Clone, IsTakenOrRefusedBySetting) {
  settings_.backup_tool = "clone";
  write_tool("xtrabackup", "xtrabackup version 8.0.35-31 based on MySQL server 8.0.35 Linux (x86_64)");
  EXPECT_EQ(choose_tool(settings_, version("mysql-8.0.36")).name, "clone");
  const Error old = error_of([&] { choose_tool(settings_, version("mysql-8.0.16")); });
  EXPECT_EQ(old.code(), Code::failed_precondition);
  EXPECT_NE(std::string(old.what()).find("xtrabackup"), std::string::npos) << old.what();
  EXPECT_EQ(code_of([&] { choose_tool(settings_, version("mariadb-10.11.19")); }), "FAILED_PRECONDITION");
}

TEST_F(Clone, IsReceivedWithoutAnyTool) {
  std::ofstream(data() / "auto.cnf") << "[auto]\nserver-uuid=of-the-source\n";
  std::ofstream(data() / "mysqld-auto.cnf") << "{}";
  receive(archive());
  EXPECT_EQ(read_file(to() / "lab/t.ibd"), "content of lab/t.ibd");
  EXPECT_EQ(read_file(to() / "#innodb_redo/#ib_redo0"), "content of #innodb_redo/#ib_redo0");
  EXPECT_FALSE(fs::exists(to() / "auto.cnf"));
  EXPECT_FALSE(fs::exists(to() / "mysqld-auto.cnf"));
}

TEST_F(Clone, NothingStaysOfOneThatIsNotWhole) {
  const std::string whole = archive();
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{512}, whole.size() / 2, whole.size() - 1024, whole.size() - 1}) {
    EXPECT_EQ(code_of([&] { receive(whole.substr(0, size)); }), "DATA_LOSS") << size;
    EXPECT_TRUE(fs::is_empty(to())) << size;
  }
  for (const std::string name : {"ibdata1", "mysql.ibd"}) {
    fs::rename(data() / name, top_.path() / name);
    const Error error = error_of([&] { receive(archive()); });
    EXPECT_EQ(error.code(), Code::data_loss);
    EXPECT_NE(std::string(error.what()).find(name), std::string::npos);
    EXPECT_TRUE(fs::is_empty(to()));
    fs::rename(top_.path() / name, data() / name);
  }
  receive(whole);
}

TEST_F(Clone, TablesElsewhereAreRefused) {
  std::ofstream(data() / "lab/t2.isl") << "/somewhere/t2.ibd";
  EXPECT_EQ(code_of([&] { receive(archive()); }), "FAILED_PRECONDITION");
  EXPECT_TRUE(fs::is_empty(to()));
}

TEST_F(Clone, BringsOnlyWhatADataDirectoryHas) {
  for (const std::string name :
       {"evil.so", "lab/evil.so", ".my.cnf", "my.cnf", "mysqld.my", "lab/.x", "lab/a\nb", "a/b/c/d/e"}) {
    fs::create_directories((data() / name).parent_path());
    std::ofstream(data() / name) << "evil";
    EXPECT_EQ(code_of([&] { receive(archive()); }), "DATA_LOSS") << name;
    EXPECT_TRUE(fs::is_empty(to())) << name;
    fs::remove(data() / name);
    fs::remove_all(data() / "a");
  }
  fs::permissions(data() / "ibdata1", fs::perms(04755));
  EXPECT_EQ(code_of([&] { receive(archive()); }), "DATA_LOSS");
}

TEST_F(Clone, IsMadeBesideTheDataUnlessSaidOtherwise) {
  EXPECT_EQ(clone_parent(settings_).parent_path(), settings_.data_dir.parent_path());
  settings_.staging_dir = top_.path() / "large";
  EXPECT_EQ(clone_parent(settings_), top_.path() / "large");
}

TEST_F(Clone, RecoveryRemovesOnlyWhatStandsInItsPlace) {
  settings_.staging_dir = top_.path() / "staging";
  settings_.socket = top_.path() / "no.sock";
  const auto made = [&](const fs::path& dir) {
    fs::create_directories(dir / "data/lab");
    std::ofstream(dir / "data/ibdata1") << "x";
    job_.journal().record("source.clone", JsonWriter().begin_object().member("dir", dir.string()).end_object().text());
  };
  made(settings_.staging_dir / "clone-abc");
  made(settings_.staging_dir / "important");
  made(top_.path() / "clone-elsewhere");
  EXPECT_EQ(recover_clone(settings_, job_), "removed the clone");
  EXPECT_FALSE(fs::exists(settings_.staging_dir / "clone-abc"));
  EXPECT_TRUE(fs::exists(settings_.staging_dir / "important/data/ibdata1"));
  EXPECT_TRUE(fs::exists(top_.path() / "clone-elsewhere/data/ibdata1"));
  EXPECT_EQ(recover_clone(settings_, job_), "");
}

TEST(RestoredPosition, IsFollowedByGtidWhereTheLeaseHasOne) {
  MysqlSettings settings;
  SnapshotMetadata snapshot;
  Position data{std::nullopt, std::nullopt, std::nullopt, true}, lease;
  snapshot.data_position = own(data);
  const Dialect& dialect = dialect_for(version("mysql-9.7.4"));
  EXPECT_FALSE(follow_by_gtid(settings, snapshot, dialect));  // gtid_mode is off there
  lease.gtid = "";                                            // on, and nothing was ever written
  snapshot.lease_position = own(lease);
  EXPECT_TRUE(follow_by_gtid(settings, snapshot, dialect));
  EXPECT_EQ(told_gtid(snapshot), "");
  data.restored = false;
  snapshot.data_position = own(data);
  EXPECT_FALSE(follow_by_gtid(settings, snapshot, dialect));
}

}  // namespace
}  // namespace guestagent::mysql

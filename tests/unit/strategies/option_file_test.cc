#include "strategies/mysql/host/option_file.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

const Dialect& mariadb() {
  return dialect_for(parse_datastore_version("mariadb-10.11.6"));
}
const Dialect& mysql9() {
  return dialect_for(parse_datastore_version("mysql-9.1.0"));
}

ManagedOptions replica() {
  ManagedOptions options;
  options.server_id = 4000000001U;
  options.scheduler_before = true;
  options.report_host = "db-2.example";
  options.report_port = 3307;
  options.log_bin = "/var/lib/mysql/binlog";
  options.relay_log = "relay-bin";
  return options;
}

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

class OptionFiles : public ::testing::Test {
 protected:
  OptionFiles() : dir(fs::temp_directory_path(), "options-") {
    settings.defaults_file = dir.path() / "my.cnf";
    settings.managed_file = dir.path() / "conf.d/zz-guestagent.cnf";
    make_dir(dir.path() / "conf.d");
    make_dir(dir.path() / "later.d");
  }
  void put(const std::string& name, const std::string& text) const { write_file_atomic(dir.path() / name, text); }
  std::string include(const std::string& name) const { return "!includedir " + (dir.path() / name).string() + "\n"; }
  Check check() const { return check_option_files(settings).front(); }

  TempDir dir;
  MysqlSettings settings;
};

TEST(ManagedFile, ReplicaOfMariadb) {
  const std::string text = write_managed(replica(), mariadb());
  for (const char* line : {"[mysqld]", "server_id = 4000000001", "read_only = ON", "event_scheduler = OFF",
                           "log_bin = \"/var/lib/mysql/binlog\"", "relay_log = \"relay-bin\"", "log_slave_updates = ON",
                           "report_host = \"db-2.example\"", "report_port = 3307"}) {
    EXPECT_TRUE(has_line(text, line)) << line << "\n" << text;
  }
  EXPECT_EQ(text.find("super_read_only"), std::string::npos) << "MariaDB does not know it";
  EXPECT_TRUE(has_line(text, "skip_slave_start = OFF"))
      << "a replica must go on after a restart, whatever another file says\n"
      << text;
  EXPECT_EQ(text.find("group_replication"), std::string::npos) << text;
}

TEST(ManagedFile, ReplicaOfMysqlSpeaksItsWords) {
  ManagedOptions options = replica();
  options.mysql_gtid = true;
  options.hidden_dir = ".guestagent";
  const std::string text = write_managed(options, mysql9());
  for (const char* line : {"super_read_only = ON", "gtid_mode = ON", "enforce_gtid_consistency = ON",
                           "skip_replica_start = OFF", "loose_group_replication_start_on_boot = OFF"})
    EXPECT_TRUE(has_line(text, line)) << line;
  EXPECT_EQ(text.find("ignore_db_dirs"), std::string::npos);
  options.mysql_gtid = false;
  EXPECT_TRUE(has_line(write_managed(options, mariadb()), "ignore_db_dirs = \".guestagent\""));
}

TEST(ManagedFile, StandaloneIsWritableAndHasItsSchedulerBack) {
  ManagedOptions options = replica();
  options.role = ReplicationRole::standalone;
  EXPECT_TRUE(has_line(write_managed(options, mysql9()), "super_read_only = ON")) << "set_read_only asks for it";
  EXPECT_TRUE(has_line(write_managed(options, mysql9()), "event_scheduler = OFF")) << "events may pass read_only";
  options.read_only = false;
  std::string text = write_managed(options, mariadb());
  EXPECT_TRUE(has_line(text, "read_only = OFF"));
  EXPECT_TRUE(has_line(text, "event_scheduler = ON"));
  EXPECT_TRUE(has_line(text, "server_id = 4000000001"));
  options.scheduler_before.reset();
  text = write_managed(options, mariadb());
  EXPECT_EQ(text.find("event_scheduler"), std::string::npos);
  EXPECT_EQ(text.find("skip_"), std::string::npos) << "what an administrator wants of a server that is no replica";
}

TEST(ManagedFile, ServerThatLogsStatementsLogsRowsAsAReplica) {
  ManagedOptions options = replica();
  EXPECT_EQ(write_managed(options, mariadb()).find("binlog_format"), std::string::npos);
  options.mixed_binlog = true;
  EXPECT_TRUE(has_line(write_managed(options, mariadb()), "binlog_format = MIXED"));
}

TEST(ManagedFile, WritableReplica) {
  ManagedOptions options = replica();
  options.read_only = false;
  EXPECT_TRUE(has_line(write_managed(options, mariadb()), "read_only = OFF"));
}

TEST_F(OptionFiles, ReadsBackWhatItWrote) {
  put_managed(settings.managed_file, write_managed(replica(), mariadb()));
  const auto back = read_managed(settings.managed_file);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->role, ReplicationRole::replica);
  EXPECT_EQ(back->server_id, 4000000001U);
  EXPECT_EQ(back->scheduler_before, true);
  EXPECT_EQ(write_managed(*back, mariadb()), write_managed(replica(), mariadb()));
  EXPECT_EQ(fs::status(settings.managed_file).permissions(), fs::perms(0644));

  put_managed(settings.managed_file, guard_text());
  EXPECT_TRUE(guard_stands(settings.managed_file));
  EXPECT_FALSE(read_managed(settings.managed_file));
  put_managed(settings.managed_file, std::nullopt);
  EXPECT_FALSE(fs::exists(settings.managed_file));
  EXPECT_FALSE(guard_stands(settings.managed_file));
  put_managed(settings.managed_file, std::nullopt);
  put("conf.d/zz-guestagent.cnf", "[mysqld]\nserver_id=1\n");
  EXPECT_FALSE(read_managed(settings.managed_file)) << "an administrator's file is not ours";
}

TEST_F(OptionFiles, ARoleThatNobodyKnowsIsToldAndNotGuessed) {
  std::string text = write_managed(replica(), mariadb());
  const std::string role = R"("role":"replica")";
  ASSERT_NE(text.find(role), std::string::npos);
  put_managed(settings.managed_file, text.replace(text.find(role), role.size(), R"("role":"relay")"));
  const Error error = test::error_of([&] { read_managed(settings.managed_file); });
  EXPECT_EQ(error.code(), Code::failed_precondition);
  EXPECT_NE(std::string(error.what()).find(R"(role: unknown: "relay")"), std::string::npos) << error.what();
}

TEST_F(OptionFiles, AnEarlierVersionsReplicaIsWrittenAnew) {
  const std::string now = write_managed(replica(), mariadb());
  const std::string line = "skip_slave_start = OFF\n";
  const std::size_t at = now.find(line);
  ASSERT_NE(at, std::string::npos);
  EXPECT_FALSE(renew_managed(settings.managed_file, mariadb())) << "there is none";
  put_managed(settings.managed_file, std::string(now).erase(at, line.size()));
  EXPECT_TRUE(renew_managed(settings.managed_file, mariadb()));
  EXPECT_EQ(read_file(settings.managed_file), now);
  EXPECT_FALSE(renew_managed(settings.managed_file, mariadb())) << "it is this one's";
  for (const std::string& other : {guard_text(), std::string("[mysqld]\nserver_id=1\n")}) {
    put_managed(settings.managed_file, other);
    EXPECT_FALSE(renew_managed(settings.managed_file, mariadb()));
    EXPECT_EQ(read_file(settings.managed_file), other);
  }
}

TEST(ManagedFile, NoValueBreaksOut) {
  ManagedOptions options = replica();
  options.report_host = "x\"\nplugin_load = evil";
  EXPECT_THROW(write_managed(options, mariadb()), Error);
}

TEST_F(OptionFiles, ReadInTheServersOrder) {
  put("conf.d/b.cnf", "[mysqld]\nserver-id = 2 # why\n");
  put("conf.d/a.cnf", "[mysqld]\nloose-server_id='1'\n[client]\nserver_id=9\n");
  put("conf.d/c.txt", "[mysqld]\nserver_id=8\n");
  put("my.cnf",
      "[mariadb]\nport=1\n" + include("conf.d") + "socket = /s\n!include " + (dir.path() / "extra").string() + "\n");
  put("extra", "[server]\nskip-name-resolve\n");
  const auto all = read_option_files(settings.defaults_file);
  std::string text;
  for (const OptionLine& line : all.lines) text += line.group + ":" + line.name + "=" + line.value + ";";
  EXPECT_EQ(text,
            "mariadb:port=1;mysqld:server_id=1;client:server_id=9;mysqld:server_id=2;mariadb:socket=/"
            "s;server:skip_name_resolve=;");
}

TEST_F(OptionFiles, FlattenedTextSaysTheSameWithoutTheManagedFile) {
  put("conf.d/a.cnf", "[client]\nuser=x\n");
  put("conf.d/zz-guestagent.cnf", guard_text());
  put("my.cnf", "[mysqld]\nport=1\n" + include("conf.d") + "socket=/s\n");
  const std::string flat = flatten_option_files(settings.defaults_file, settings.managed_file);
  EXPECT_EQ(flat.find(kGuardOption), std::string::npos);
  EXPECT_EQ(flat.find("!include"), std::string::npos);
  put("flat.cnf", flat);
  std::string groups;
  for (const OptionLine& line : read_option_files(dir.path() / "flat.cnf").lines)
    groups += line.group + ":" + line.name + ";";
  EXPECT_EQ(groups, "mysqld:port;client:user;mysqld:socket;");
}

TEST_F(OptionFiles, ManagedFileThatIsReadLastIsGood) {
  put("conf.d/50-server.cnf", "[mysqld]\nserver_id=1\nread_only=0\n");
  put("my.cnf", "[mysqld]\nserver_id=3\n" + include("conf.d"));
  settings.server.command = {"mariadbd", "--defaults-file=" + settings.defaults_file.string()};
  EXPECT_EQ(check().result, Check::Result::ok) << check().message;
  settings.server.command = {"mariadbd"};
  EXPECT_EQ(check().result, Check::Result::ok) << check().message;
}

TEST_F(OptionFiles, WhatOnlyAReplicasFileSetsMayNotStandAfterIt) {
  put("conf.d/zzz.cnf", "[mysqld]\nskip-slave-start\n");
  put("my.cnf", "[mysqld]\n" + include("conf.d"));
  settings.server.command = {"mariadbd"};
  EXPECT_EQ(check().result, Check::Result::ok) << check().message;
  EXPECT_EQ(check_option_files(settings, true).front().result, Check::Result::failed);
  put("conf.d/zzz.cnf", "");
  put("conf.d/50.cnf", "[mysqld]\nskip-slave-start\n");
  EXPECT_EQ(check_option_files(settings, true).front().result, Check::Result::ok);
  settings.server.command = {"mariadbd", "--skip-slave-start"};
  EXPECT_EQ(check_option_files(settings, true).front().result, Check::Result::failed);
}

TEST_F(OptionFiles, OtherOptionsAreThoseAroundTheManagedFile) {
  put("conf.d/50.cnf", "[galera]\nwsrep-on=ON\n[client]\nuser=x\n");
  put("conf.d/zz-guestagent.cnf", "[mysqld]\nserver_id=9\n");
  put("my.cnf", "[mysqld]\nport=1\n" + include("conf.d"));
  settings.server.command = {"mariadbd", "--loose-read-only=0", "word"};
  std::string text;
  for (const OptionLine& line : other_options(settings)) text += line.name + "=" + line.value + ";";
  EXPECT_EQ(text, "port=1;wsrep_on=ON;read_only=0;");
}

TEST_F(OptionFiles, ErrorLogIsWhereTheOptionsSay) {
  settings.data_dir = dir.path();
  put("my.cnf", "[mysqld]\nport=1\n");
  EXPECT_EQ(configured_error_log(settings), fs::path());
  put("my.cnf", "[mysqld]\nlog-error=/var/log/a.log\nlog-error=logs/b\n");
  EXPECT_EQ(configured_error_log(settings), dir.path() / "logs/b.err");
  settings.server.command = {"mariadbd", "--log-error=/x/c.log"};
  EXPECT_EQ(configured_error_log(settings), fs::path("/x/c.log"));
  settings.defaults_file = dir.path() / "nowhere.cnf";
  EXPECT_EQ(configured_error_log(settings), fs::path());
}

TEST_F(OptionFiles, ManagedFileThatIsNotReadIsRefused) {
  put("my.cnf", "[mysqld]\n" + include("later.d"));
  EXPECT_EQ(check().result, Check::Result::failed);
  EXPECT_NE(check().hint.find("!includedir " + (dir.path() / "conf.d").string()), std::string::npos) << check().hint;
  put("my.cnf", "[mysqld]\n" + include("conf.d"));
  settings.managed_file = dir.path() / "conf.d/guestagent.conf";
  EXPECT_EQ(check().result, Check::Result::failed) << "only .cnf is read";
  settings.defaults_file = dir.path() / "nowhere.cnf";
  EXPECT_EQ(check().result, Check::Result::failed);
}

TEST_F(OptionFiles, LaterOptionsThatWinAreRefused) {
  put("later.d/x.cnf", "[client]\nserver_id=1\n[mariadb-10.11]\nserver-id=7\n");
  put("my.cnf", "[mysqld]\n" + include("conf.d") + include("later.d"));
  const Check refused = check();
  EXPECT_EQ(refused.result, Check::Result::failed);
  EXPECT_NE(refused.message.find("later.d/x.cnf (line 4): server_id"), std::string::npos) << refused.message;
  put("later.d/x.cnf", "[client]\nserver_id=1\n[mysqld]\nbind_address=0.0.0.0\n");
  EXPECT_EQ(check().result, Check::Result::ok) << check().message;
}

TEST_F(OptionFiles, CommandLinesThatWinAreRefused) {
  put("my.cnf", "[mysqld]\n" + include("conf.d"));
  for (const std::string bad : {"--no-defaults", "--server-id=3", "--read_only", "--defaults-file=/etc/other.cnf"}) {
    settings.server.command = {"mariadbd", bad};
    EXPECT_EQ(check().result, Check::Result::failed) << bad;
  }
}

TEST_F(OptionFiles, CircleEnds) {
  put("my.cnf", "!include " + settings.defaults_file.string() + "\n");
  EXPECT_EQ(check().result, Check::Result::failed);
}

}  // namespace
}  // namespace guestagent::mysql

// What can go wrong on the source while it is copied, and on the way from it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <thread>

#include "strategies/mysql/follow/replica_start.h"
#include "strategies/mysql/follow/replica_stop.h"
#include "tests/support/copied_server.h"
#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

using test::code_of;
using test::error_of;
using test::FakeJob;
using test::MariadbServer;
using test::SourceAndCopy;
using test::SourceParts;
using ::testing::HasSubstr;

std::string accounts_of(const MariadbServer& server) {
  return server.sql("SELECT User FROM mysql.user WHERE User LIKE 'repl%'");
}

void wait_for(const std::function<bool()>& what) {
  for (int i = 0; i < 1200 && !what(); ++i) system_clock().sleep(Millis(50), {});
  ASSERT_TRUE(what());
}

std::string backup_sessions(const MariadbServer& server) {
  return server.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE INFO LIKE 'BACKUP%'");
}

// A tool that does what `script` says; what it writes to standard output is the stream.
MysqlSettings with_tool(const MariadbServer& server, const std::string& script) {
  const fs::path dir = server.dir() / "tools";
  make_dir(dir);
  write_file_atomic(
      dir / "mariadb-backup",
      "#!/bin/sh\nfor a in \"$@\"; do case $a in --version) echo 'mariadb-backup based on MariaDB server " +
          server.sql("SELECT SUBSTRING_INDEX(@@version, '-', 1)").substr(0, 8) +
          "-MariaDB' >&2; exit 0;; --extra-lsndir=*) info=${a#*=};; --defaults-file=*) options=${a#*=};; "
          "esac; done\n"
          // As a tool does: it asks the server of its option file, there for the position too.
          "sock=$(sed -n 's/^socket=\"\\(.*\\)\"$/\\1/p' \"$options\")\n"
          "ask() { mariadb --no-defaults --socket=\"$sock\" --user=root --skip-column-names --batch --execute=\"$1\"; "
          "}\n"
          "where=$(ask 'SHOW MASTER STATUS'); file=$(echo \"$where\" | cut -f1); pos=$(echo \"$where\" | cut -f2)\n"
          "gtid=$(ask 'SELECT @@gtid_binlog_pos')\n" +
          script,
      0755);
  ::chmod((dir / "mariadb-backup").c_str(), 0755);
  MysqlSettings settings = server.settings();
  settings.tools_dir = dir;
  return settings;
}

// A stream of the xbstream format: the end of an empty file "a".
const char kData[] = "printf 'XBSTCK01\\000E\\001\\000\\000\\000a'\n";

const char kGoodInfo[] =
    "printf '%s\\n' 'tool_name = mariadb-backup' 'tool_version = 10' 'server_version = 10' 'start_time = t' "
    "'end_time = t' "
    "\"binlog_pos = filename '$file', position '$pos', GTID of the last change '$gtid'\" "
    "'innodb_to_lsn = 7' 'partial = N' "
    "'incremental = N' 'format = xbstream' 'compressed = N' > $info/xtrabackup_info\n";
const char kSays[] =
    "echo \"binlog position: filename '$file', position '$pos', GTID of the last change '$gtid'\" "
    ">&2\n";
const char kCompleted[] = "echo 'completed OK!' >&2\n";

Error error_with_tool(const std::string& script) {
  MariadbServer server;
  SourceParts parts(server, with_tool(server, script));
  FakeJob job(server.dir() / "journal");
  Error error(Code::internal, "");
  {
    auto stream = parts.source.open({"snap"}, job);
    error = error_of([&] { test::drain_to_file(*stream, server.dir() / "snap.xb"); });
  }
  parts.source.recover(job);
  EXPECT_EQ(accounts_of(server), "") << "a copy that failed leaves no account";
  return error;
}

TEST(ToolFaults, AGoodToolIsBelieved) {
  MariadbServer server;
  SourceParts parts(server, with_tool(server, std::string(kData) + kGoodInfo + kSays + kCompleted));
  FakeJob job(server.dir() / "journal");
  auto stream = parts.source.open({"snap"}, job);
  EXPECT_EQ(test::drain_to_file(*stream, server.dir() / "snap.xb"), 15U);
  const Position at = position_of(stream->facts().data_position);
  EXPECT_EQ(server.sql("SHOW MASTER STATUS").substr(0, at.file->size() + 1 + std::to_string(*at.offset).size()),
            *at.file + "\t" + std::to_string(*at.offset));
}

TEST(ToolFaults, ExitZeroWithoutTheWordIsAFailure) {
  const Error error = error_with_tool(std::string(kData) + kGoodInfo + kSays + "echo almost >&2\n");
  EXPECT_THAT(error.what(), HasSubstr("without saying that it completed"));
  EXPECT_THAT(error.what(), HasSubstr("almost"));
}

TEST(ToolFaults, TheWordBeforeTheEndIsNoSuccess) {
  EXPECT_THAT(error_with_tool(std::string(kGoodInfo) + kSays + kCompleted + "echo 'Error: late' >&2\n").what(),
              HasSubstr("late"));
}

TEST(ToolFaults, TheWordWithABadExitIsAFailure) {
  EXPECT_THAT(error_with_tool(std::string(kData) + kGoodInfo + kSays + kCompleted + "exit 3\n").what(),
              HasSubstr("exit status 3"));
}

TEST(ToolFaults, AMissingInfoFileIsRefused) {
  EXPECT_EQ(error_with_tool(std::string(kData) + kSays + kCompleted).code(), Code::data_loss);
}

TEST(ToolFaults, APositionThatDisagreesWithWhatTheToolSaidIsRefused) {
  const std::string other =
      "echo \"binlog position: filename 'binlog.000001', position '4712', GTID of the last change '0-1-5'\" "
      ">&2\n";
  EXPECT_EQ(error_with_tool(std::string(kData) + kGoodInfo + other + kCompleted).code(), Code::data_loss);
}

TEST(ToolFaults, APartialCopyIsRefused) {
  std::string info = kGoodInfo;
  info.replace(info.find("partial = N"), 11, "partial = Y");
  EXPECT_EQ(error_with_tool(kData + info + kSays + kCompleted).code(), Code::failed_precondition);
}

TEST(ToolFaults, AnOverrunRedoLogIsExplained) {
  const Error error =
      error_with_tool(std::string(kData) + "echo 'Was only able to copy log from 1 to 2' >&2\nexit 1\n");
  EXPECT_EQ(error.code(), Code::resource_exhausted);
  EXPECT_THAT(error.hint(), HasSubstr("innodb_log_file_size"));
}

TEST(ToolFaults, AServerThatEndedIsNotAnOverrunRedoLog) {
  const Error error = error_with_tool(std::string(kData) +
                                      "echo 'failed to execute query: Server has gone away' >&2\n"
                                      "echo 'Was only able to copy log from 1 to 2' >&2\nexit 1\n");
  EXPECT_EQ(error.code(), Code::unavailable);
}

TEST(ToolFaults, AKilledToolIsAFailure) {
  EXPECT_THAT(error_with_tool(std::string(kData) + "kill -9 $$\n").what(), HasSubstr("signal 9"));
}

TEST(ToolFaults, NoPasswordIsInItsArgumentsOrEnvironment) {
  MariadbServer server;
  server.sql(
      "CREATE USER agent@localhost IDENTIFIED BY 'Very \"secret\" #1'; GRANT ALL ON *.* TO agent@localhost "
      "WITH GRANT OPTION");
  const fs::path seen = server.dir() / "seen";
  MysqlSettings settings = with_tool(server, "{ echo \"$@\"; env; } > " + seen.string() + "\ncp $options " +
                                                 seen.string() + ".options; stat -c %a $options > " + seen.string() +
                                                 ".mode\n" + kGoodInfo + kSays + kCompleted);
  settings.user = "agent";
  settings.password_file = server.dir() / "password";
  write_file_atomic(*settings.password_file, "Very \"secret\" #1\n", 0600);
  SourceParts parts(server, settings);
  FakeJob job(server.dir() / "journal");
  auto stream = parts.source.open({"snap"}, job);
  test::drain_to_file(*stream, server.dir() / "snap.xb");
  EXPECT_EQ(read_file(seen).find("secret"), std::string::npos);
  EXPECT_EQ(read_file(seen.string() + ".mode"), "600\n");
  // The server's own options come first, so that the tool knows where everything is.
  EXPECT_EQ(read_file(seen.string() + ".options").find("!include"), 0U);
  const fs::path copy = server.dir() / "as-client.cnf";
  std::string text = read_file(seen.string() + ".options");
  text.replace(text.find("[mariadb-backup]"), 16, "[client]");
  write_file_atomic(copy, text, 0600);
  EXPECT_EQ(read_client_file(copy).password.reveal(), "Very \"secret\" #1");
}

TEST(SourceFaults, ALockedTableCannotHoldTheCopyForLong) {
  MariadbServer server;
  test::make_table(server, 10);
  server.sql("CREATE TABLE d.m(a INT) ENGINE=MyISAM");
  MysqlSettings settings = server.settings();
  settings.lock_wait = Seconds(2);
  SourceParts parts(server, settings);
  auto holder = server.sql_async("LOCK TABLES d.m WRITE; SELECT SLEEP(600)");
  wait_for([&] {
    return server.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE INFO LIKE 'SELECT SLEEP%'") == "1\n";
  });
  FakeJob job(server.dir() / "journal");
  {
    auto stream = parts.source.open({"snap"}, job);
    EXPECT_EQ(code_of([&] { test::drain_to_file(*stream, server.dir() / "snap.xb"); }), "DEADLINE_EXCEEDED");
  }
  parts.source.recover(job);
  EXPECT_EQ(accounts_of(server), "");
  wait_for([&] { return backup_sessions(server) == "0\n"; });
  server.sql("INSERT INTO d.t(b) VALUES ('served')");
}

const char kLongWrite[] = "INSERT INTO d.m SELECT SLEEP(600)";

std::string left_of_tool(const MariadbServer& server) {
  return server.sql(
      "SELECT COUNT(*) FROM information_schema.processlist WHERE INFO LIKE 'FLUSH%' OR INFO LIKE 'BACKUP%'");
}

// A server that is held up by a query of an hour, and a session of somebody else with the agent's own account in the
// same wait.
class HeldUp {
 public:
  HeldUp() {
    test::make_table(server, 10);
    server.sql("CREATE TABLE d.m(a INT) ENGINE=MyISAM");
    query_ = server.sql_async(kLongWrite);
    wait_for([&] { return running() == "1\n"; });
  }
  std::string running() const {
    return server.sql(std::string("SELECT COUNT(*) FROM information_schema.processlist WHERE INFO = '") + kLongWrite +
                      "'");
  }
  void still_served() const {
    EXPECT_EQ(running(), "1\n") << "the query must still run for this to say anything";
    EXPECT_EQ(left_of_tool(server), "0\n");
    server.sql("SET lock_wait_timeout=20; INSERT INTO d.t(b) VALUES ('served')");
  }
  MariadbServer server;

 private:
  std::unique_ptr<Child> query_;
};

// The server does not notice that a client is gone whose lock it waits for: it went on to hold up all writers.
TEST(SourceFaults, ALockThatWaitsEndsWithTheTool) {
  for (const char* how : {"dropped", "killed", "gives up"}) {
    SCOPED_TRACE(how);
    HeldUp held;
    MysqlSettings settings =
        with_tool(held.server, std::string(kData) + (how == std::string("killed") ? "(sleep 2; kill -9 $$) &\n" : "") +
                                   "ask 'SET lock_wait_timeout=31536000; FLUSH TABLES WITH READ LOCK' >&2 || exit 1\n");
    settings.lock_wait = how == std::string("gives up") ? Seconds(3) : Seconds(600);
    settings.freeze_limit = Seconds(1);
    SourceParts parts(held.server, settings);
    FakeJob job(held.server.dir() / "journal");
    {
      auto stream = parts.source.open({"snap"}, job);
      wait_for([&] { return left_of_tool(held.server) != "0\n"; });
      if (how != std::string("dropped")) {
        EXPECT_EQ(error_of([&] { test::drain_to_file(*stream, held.server.dir() / "snap.xb"); }).code(),
                  how == std::string("killed") ? Code::internal : Code::deadline_exceeded);
      }
    }
    held.still_served();
    parts.source.recover(job);
    EXPECT_EQ(accounts_of(held.server), "");
  }
}

TEST(SourceFaults, ALockThatIsKeptForTooLongEndsTheCopy) {
  MariadbServer server;
  test::make_table(server, 10);
  MysqlSettings settings =
      with_tool(server, std::string(kData) + "ask 'FLUSH TABLES WITH READ LOCK; SELECT SLEEP(600)' >&2\n");
  settings.lock_wait = Seconds(2);
  SourceParts parts(server, settings);
  FakeJob job(server.dir() / "journal");
  {
    auto stream = parts.source.open({"snap"}, job);
    const Error error = error_of([&] { test::drain_to_file(*stream, server.dir() / "snap.xb"); });
    EXPECT_EQ(error.code(), Code::deadline_exceeded);
    EXPECT_THAT(error.what(), HasSubstr("kept the source locked"));
  }
  EXPECT_EQ(server.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE INFO='SELECT SLEEP(600)'"), "0\n");
  server.sql("SET lock_wait_timeout=20; INSERT INTO d.t(b) VALUES ('served')");
}

// What an agent that died leaves the next start ends: that and no session of another with the same account.
TEST(SourceFaults, ALockThatWaitsForADeadAgentIsEndedByTheNextStart) {
  HeldUp held;
  SourceParts parts(held.server);
  const std::string tool = "FLUSH TABLES WITH READ LOCK", person = "FLUSH LOCAL TABLES WITH READ LOCK";
  const auto waiting = [&](const std::string& statement) {
    return held.server.sql("SELECT ID FROM information_schema.processlist WHERE INFO='" + statement + "'");
  };
  const auto of_tool = held.server.sql_async("SET lock_wait_timeout=600; " + tool);
  wait_for([&] { return !waiting(tool).empty(); });
  const auto of_person = held.server.sql_async("SET lock_wait_timeout=600; " + person);
  wait_for([&] { return !waiting(person).empty(); });
  const fs::path work = parts.state / "work" / "copy-dead";
  FakeJob job(held.server.dir() / "journal");
  const auto crashed = [&](const std::string& ids) {
    fs::create_directories(work.parent_path());
    make_dir(work, 0700);
    write_file_atomic(work / "sessions", ids, 0600);
    job.journal().record("source.work", "{\"path\": \"" + work.string() + "\"}");
  };
  // Of a server's life before this one: such numbers are of others now.
  crashed(waiting(tool));
  const timespec long_ago[2] = {{1000000000, 0}, {1000000000, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, (work / "sessions").c_str(), long_ago, 0), 0);
  parts.source.recover(job);
  EXPECT_NE(waiting(tool), "");
  EXPECT_FALSE(fs::exists(work));
  crashed("999999\n" + waiting(tool));
  EXPECT_THAT(parts.source.recover(job), HasSubstr("left waiting"));
  EXPECT_EQ(waiting(tool), "");
  EXPECT_NE(waiting(person), "");
  EXPECT_FALSE(fs::exists(work));
}

// A copy of this server with the position of another, which a group for clients named.
TEST(SourceFaults, TheOptionFilesOfTheSiteLeadTheToolNowhereElse) {
  MariadbServer other;
  other.sql(
      "CREATE USER agent@'%' IDENTIFIED BY 'pw'; GRANT ALL ON *.* TO agent@'%' WITH GRANT OPTION; CREATE DATABASE "
      "elsewhere");
  std::vector<std::string> lines;
  for (const char* group : {"[client]", "[mariadb-backup]", "[client-mariadb]", "[mariabackup]"}) {
    lines.insert(lines.end(), {group, "host=127.0.0.1", "port=" + std::to_string(other.port()), "protocol=tcp"});
  }
  test::MariadbOptions options;
  options.lines = lines;
  MariadbServer server(options);
  server.sql("CREATE USER agent@localhost IDENTIFIED BY 'pw'; GRANT ALL ON *.* TO agent@localhost WITH GRANT OPTION");
  test::make_table(server, 10);
  MysqlSettings settings = server.settings();
  settings.user = "agent";
  settings.password_file = server.dir() / "password";
  write_file_atomic(*settings.password_file, "pw\n", 0600);
  SourceParts parts(server, settings);
  FakeJob job(server.dir() / "journal");
  auto stream = parts.source.open({"snap"}, job);
  test::drain_to_file(*stream, server.dir() / "snap.xb");
  const Position at = position_of(stream->facts().data_position);
  EXPECT_EQ(server.sql("SELECT @@gtid_binlog_pos"), *at.gtid + "\n");
  EXPECT_NE(other.sql("SELECT @@gtid_binlog_pos"), *at.gtid + "\n");
}

// The tool's own limit is for its first stage only.
TEST(SourceFaults, AQueryThatHoldsALaterStageIsLimitedToo) {
  MariadbServer server;
  test::make_table(server, 300000);
  server.sql("CREATE TABLE d.m(a INT) ENGINE=MyISAM");
  MysqlSettings settings = server.settings();
  settings.lock_wait = Seconds(2);
  SourceParts parts(server, settings);
  FakeJob job(server.dir() / "journal");
  {
    auto stream = parts.source.open({"snap"}, job);
    std::vector<std::byte> some(1 << 16);
    ASSERT_GT(stream->read(some), 0U);  // the first stage is over, and the tool waits for its reader
    auto holder = server.sql_async("INSERT INTO d.m SELECT SLEEP(600)");
    wait_for([&] {
      return server.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE INFO LIKE 'INSERT%SLEEP%'") == "1\n";
    });
    const Error error = error_of([&] { test::drain_to_file(*stream, server.dir() / "snap.xb"); });
    EXPECT_EQ(error.code(), Code::deadline_exceeded);
    EXPECT_THAT(error.what(), HasSubstr("BACKUP STAGE"));
    // The source serves others at once, though the query still runs.
    server.sql("INSERT INTO d.t(b) VALUES ('served'); CREATE TABLE d.new_one(a INT)");
    wait_for([&] { return backup_sessions(server) == "0\n"; });
  }
  parts.source.recover(job);
  EXPECT_EQ(accounts_of(server), "");
}

// The real tool in a later stage, whose wait it does not limit itself.
TEST(SourceFaults, ALaterStageThatWaitsEndsWithTheCopy) {
  MariadbServer server;
  test::make_table(server, 300000);
  server.sql("CREATE TABLE d.m(a INT) ENGINE=MyISAM");
  MysqlSettings settings = server.settings();
  settings.lock_wait = Seconds(600);
  SourceParts parts(server, settings);
  FakeJob job(server.dir() / "journal");
  {
    auto stream = parts.source.open({"snap"}, job);
    std::vector<std::byte> some(1 << 16);
    ASSERT_GT(stream->read(some), 0U);
    auto holder = server.sql_async(kLongWrite);
    wait_for([&] {
      return server.sql(std::string("SELECT COUNT(*) FROM information_schema.processlist WHERE INFO='") + kLongWrite +
                        "'") == "1\n";
    });
    std::thread canceller([&] {
      wait_for([&] { return backup_sessions(server) != "0\n"; });
      job.cancel();
    });
    EXPECT_EQ(code_of([&] { test::drain_to_file(*stream, server.dir() / "snap.xb"); }), "CANCELLED");
    canceller.join();
    stream.reset();
    EXPECT_EQ(
        server.sql(std::string("SELECT COUNT(*) FROM information_schema.processlist WHERE INFO='") + kLongWrite + "'"),
        "1\n");
    EXPECT_EQ(backup_sessions(server), "0\n");
    server.sql("SET lock_wait_timeout=20; INSERT INTO d.t(b) VALUES ('served'); CREATE TABLE d.new_one(a INT)");
  }
  parts.source.recover(job);
  EXPECT_EQ(accounts_of(server), "");
}

TEST(SourceFaults, TheServerDyingUnderTheCopyIsAFailureAndTheAccountIsDroppedLater) {
  MariadbServer server;
  test::make_table(server, 300000);
  SourceParts parts(server);
  FakeJob job(server.dir() / "journal");
  {
    auto stream = parts.source.open({"snap"}, job);
    std::vector<std::byte> some(1 << 16);
    ASSERT_GT(stream->read(some), 0U);
    server.kill();
    EXPECT_THROW(test::drain_to_file(*stream, server.dir() / "snap.xb"), Error);
  }
  EXPECT_THROW(parts.source.recover(job), LeftBehind) << "it says that the account could not be dropped";
  server.start();
  EXPECT_EQ(parts.accounts.list().size(), 1U);
  parts.source.recover(job);
  EXPECT_EQ(accounts_of(server), "");
  EXPECT_TRUE(parts.accounts.list().empty());
}

// File positions never meet here: the relay log ends inside a transaction.
class ReplicaFaults : public ::testing::TestWithParam<const char*> {};

TEST_P(ReplicaFaults, ASourceKilledInsideALargeTransactionEndsAtTheLastWholeOne) {
  SourceAndCopy pair;
  MysqlSettings settings = pair.copy->settings();
  settings.replication = GetParam();
  const fs::path state = pair.copy->dir() / "state";
  FakeJob start(pair.copy->dir() / "journal-start");
  start_replicating(settings, state, pair.attach, start, system_clock());
  pair.source->sql("INSERT INTO d.t(b) VALUES ('last whole one')");
  ServerClient source(local_target(pair.source->settings()));
  const Position whole = source.binlog_status().position;
  ServerClient copy(local_target(settings));
  ASSERT_TRUE(copy.wait_applied(*whole.gtid, Seconds(60)));
  auto big = pair.source->sql_async("USE d; INSERT INTO t(b) SELECT REPEAT('z', 95) FROM seq_1_to_400000");
  wait_for([&] {
    const ReplicaStatus now = copy.replica_status().at(0);
    return now.received.file != whole.file || now.received.offset.value_or(0) > *whole.offset + (1 << 20);
  });
  pair.source->kill();
  const ReplicaStatus torn = copy.replica_status().at(0);
  FakeJob stop(pair.copy->dir() / "journal-stop");
  const DetachOutcome outcome = stop_replicating(settings, state, {}, {}, stop, system_clock());
  // Unless the whole of it had come, which this test is not about.
  if (torn.received.gtid == whole.gtid || !torn.received.gtid) {
    EXPECT_EQ(position_of(outcome.last_applied).gtid, whole.gtid);
    EXPECT_EQ(pair.copy->sql("SELECT COUNT(*) FROM d.t WHERE b LIKE 'z%'"), "0\n");
  }
  EXPECT_EQ(pair.copy->sql("SELECT COUNT(*) FROM d.t WHERE b='last whole one'"), "1\n");
  EXPECT_EQ(pair.copy->sql("SHOW ALL SLAVES STATUS"), "");
  pair.copy->sql("INSERT INTO d.t(b) VALUES ('own')");
}

INSTANTIATE_TEST_SUITE_P(Both, ReplicaFaults, ::testing::Values("gtid", "position"));

}  // namespace
}  // namespace guestagent::mysql

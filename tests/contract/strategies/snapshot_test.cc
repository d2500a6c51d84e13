// The source's side of a snapshot on a real server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "strategies/mysql/source/source_server.h"
#include "tests/support/copied_server.h"
#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

using test::code_of;
using test::error_of;
using test::FakeJob;
using test::MariadbOptions;
using test::MariadbServer;
using test::SourceParts;
using ::testing::HasSubstr;

std::string accounts_of(const MariadbServer& server) {
  return server.sql("SELECT User FROM mysql.user WHERE User LIKE 'repl%' ORDER BY 1");
}
std::string expiry_of(const MariadbServer& server) {
  return server.sql("SELECT @@binlog_expire_logs_seconds");
}

MariadbOptions with(std::vector<std::string> lines) {
  MariadbOptions out;
  out.lines = std::move(lines);
  return out;
}

const Check* find(const Plan& plan, std::string_view name) {
  for (const Check& check : plan.checks) {
    if (check.name == name) return &check;
  }
  return nullptr;
}

TEST(Snapshot, ACopyUnderWritesIsWholeAtItsPosition) {
  MariadbServer source;
  MariadbOptions options;
  options.server_id = 2;
  options.start = false;
  MariadbServer copy(options);
  test::make_table(source, 20000);
  SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  SourceFacts facts;
  {
    test::Writer writer(source);
    auto stream = parts.source.open({"snap"}, job);
    test::drain_to_file(*stream, source.dir() / "snap.xb");
    std::byte more{};
    EXPECT_EQ(stream->read({&more, 1}), 0U) << "the end stays the end";
    facts = stream->facts();
  }
  const Position data = position_of(facts.data_position);
  ASSERT_TRUE(data.gtid.has_value());
  ASSERT_TRUE(position_of(facts.lease_position).gtid.has_value());
  EXPECT_EQ(facts.master_host, "127.0.0.1");
  EXPECT_EQ(facts.master_port, source.port());
  EXPECT_EQ(facts.format, "xbstream");
  EXPECT_THAT(facts.tool, HasSubstr("mariadb-backup 1"));
  EXPECT_FALSE(facts.require_tls) << "auto, on a server without certificates";
  EXPECT_GT(facts.dataset_bytes, 1U << 20);
  EXPECT_EQ(read_source_server(facts.server_json).page_size, 16384U);

  // The copy has exactly the rows that the source's binary log had made up to that position.
  test::run_on_copy(copy, source.dir() / "snap.xb");
  const std::string rows = copy.sql("SELECT COUNT(*) FROM d.t");
  const std::string gtid_at_file =
      source.sql("SELECT BINLOG_GTID_POS('" + *data.file + "', " + std::to_string(*data.offset) + ")");
  EXPECT_EQ(gtid_at_file, *data.gtid + "\n");
  EXPECT_EQ(copy.sql("SELECT COUNT(*) FROM mysql.user WHERE User='" + facts.replication_user + "'"), "1\n");
  EXPECT_GE(std::stoi(rows), 20000);
}

TEST(Snapshot, TheAccountStaysWithTheFactsAndGoesWithItsRelease) {
  MariadbServer source(with({"binlog_expire_logs_seconds=86400"}));
  SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  std::string user;
  {
    auto stream = parts.source.open({"Snap-1"}, job);
    EXPECT_EQ(expiry_of(source), "0\n") << "the lease: nothing is purged";
    test::drain_to_file(*stream, source.dir() / "snap.xb");
    user = stream->facts().replication_user;
  }
  EXPECT_EQ(accounts_of(source), user + "\n");
  EXPECT_EQ(expiry_of(source), "0\n");
  ServerClient client(local_target(parts.settings));
  parts.accounts.release(client, user, job);
  EXPECT_EQ(accounts_of(source), "");
  EXPECT_EQ(expiry_of(source), "86400\n");
  EXPECT_EQ(code_of([&] { parts.accounts.release(client, user, job); }), "NOT_FOUND");
}

TEST(Snapshot, OnlyAccountsOfTheAgentAreEverDropped) {
  MariadbServer source;
  source.sql("CREATE USER repl_mine@'%'");
  SourceParts parts(source);
  ServerClient client(local_target(parts.settings));
  FakeJob job(source.dir() / "journal");
  for (const char* name : {"repl_mine", "root", "", "../x", "%"}) {
    EXPECT_EQ(code_of([&] { parts.accounts.release(client, name, job); }), "NOT_FOUND") << name;
  }
  EXPECT_TRUE(job.journal().steps().empty()) << "there is nothing to finish";
  EXPECT_EQ(accounts_of(source), "repl_mine\n");
  EXPECT_EQ(code_of([&] { parts.source.open({"mine"}, job); }), "ALREADY_EXISTS");
  EXPECT_EQ(accounts_of(source), "repl_mine\n");
}

// Its replicas follow with the password that they have.
TEST(Snapshot, AnAccountInUseIsNotGivenANewPassword) {
  MariadbServer source;
  SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  ServerClient client(local_target(parts.settings));
  parts.accounts.make(client, "snap", Secret("p"), false, job);
  const std::string before = source.sql("SHOW CREATE USER repl_snap");
  FakeJob again(source.dir() / "journal-2");
  EXPECT_EQ(code_of([&] { parts.source.open({"snap"}, again); }), "ALREADY_EXISTS");
  EXPECT_EQ(source.sql("SHOW CREATE USER repl_snap"), before);
  EXPECT_EQ(parts.accounts.list().size(), 1U);
}

TEST(Snapshot, TheLeaseEndsWithTheLastOfSeveral) {
  MariadbServer source(with({"binlog_expire_logs_seconds=86400"}));
  SourceParts parts(source);
  for (const char* id : {"one", "two"}) {
    FakeJob job(source.dir() / (std::string("journal-") + id));
    auto stream = parts.source.open({id}, job);
    test::drain_to_file(*stream, source.dir() / "snap.xb");
    stream->facts();
  }
  ServerClient client(local_target(parts.settings));
  FakeJob job(source.dir() / "journal-release");
  parts.accounts.release(client, "repl_one", job);
  EXPECT_EQ(expiry_of(source), "0\n");
  parts.accounts.release(client, "repl_two", job);
  EXPECT_EQ(expiry_of(source), "86400\n");
}

TEST(Snapshot, ALeaseThatNobodyUsesEndsByItself) {
  MariadbServer source(with({"binlog_expire_logs_seconds=86400"}));
  MysqlSettings settings = source.settings();
  settings.lease_limit = Millis(0);
  SourceParts parts(source, settings);
  FakeJob job(source.dir() / "journal");
  ServerClient client(local_target(parts.settings));
  parts.accounts.make(client, "snap", Secret("p"), false, job);
  EXPECT_EQ(expiry_of(source), "0\n");
  // Times are kept to the second.
  while (parts.accounts.tend(client).empty()) system_clock().sleep(Millis(100), {});
  EXPECT_EQ(expiry_of(source), "86400\n");
  EXPECT_EQ(accounts_of(source), "repl_snap\n") << "the account itself is only dropped when asked";
}

TEST(Snapshot, ARestartOfTheServerDoesNotEndTheLease) {
  MariadbServer source(with({"binlog_expire_logs_seconds=86400"}));
  SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  ServerClient client(local_target(parts.settings));
  parts.accounts.make(client, "snap", Secret("p"), false, job);
  source.stop();
  source.start();
  EXPECT_EQ(expiry_of(source), "86400\n");
  parts.accounts.tend(client);
  EXPECT_EQ(expiry_of(source), "0\n");
}

TEST(Snapshot, AStreamThatIsDroppedStopsAndTheJournalUndoes) {
  MariadbServer source(with({"binlog_expire_logs_seconds=86400"}));
  test::make_table(source, 100000);
  SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  {
    auto stream = parts.source.open({"snap"}, job);
    std::vector<std::byte> some(4096);
    EXPECT_GT(stream->read(some), 0U);
    EXPECT_EQ(accounts_of(source), "repl_snap\n");
  }
  EXPECT_EQ(source.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE INFO LIKE 'BACKUP%'"), "0\n");
  parts.source.recover(job);
  EXPECT_EQ(accounts_of(source), "");
  EXPECT_EQ(expiry_of(source), "86400\n");
  EXPECT_TRUE(fs::is_empty(parts.state / "work")) << "no temporary directory is left";
}

TEST(Snapshot, CancellingEndsTheReadAndUndoes) {
  MariadbServer source;
  test::make_table(source, 100000);
  SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  {
    auto stream = parts.source.open({"snap"}, job);
    job.cancel();
    EXPECT_EQ(code_of([&] { test::drain_to_file(*stream, source.dir() / "snap.xb"); }), "CANCELLED");
  }
  parts.source.recover(job);
  EXPECT_EQ(accounts_of(source), "");
}

TEST(Snapshot, AfterACrashTheJournalTellsWhatToUndo) {
  MariadbServer source(with({"binlog_expire_logs_seconds=86400"}));
  SourceParts parts(source);
  const fs::path journal = source.dir() / "journal";
  const fs::path left_behind = parts.state / "work" / "copy-dead";
  {
    FakeJob job(journal);
    job.journal().record("source.work", "{\"path\":\"" + left_behind.string() + "\"}");
    make_dir(left_behind, 0700);
    ServerClient client(local_target(parts.settings));
    parts.accounts.make(client, "snap", Secret("p"), false, job);
  }
  FakeJob again(journal);
  EXPECT_THAT(parts.source.recover(again), HasSubstr("repl_snap"));
  EXPECT_EQ(accounts_of(source), "");
  EXPECT_EQ(expiry_of(source), "86400\n");
  EXPECT_FALSE(fs::exists(left_behind));
  EXPECT_NO_THROW(parts.source.recover(again)) << "twice does no harm";
}

TEST(Snapshot, ASourceWithoutBinaryLogIsRefusedAndUntouched) {
  MariadbOptions options;
  options.log_bin = false;
  MariadbServer source(options);
  SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  const Error error = error_of([&] { parts.source.open({"snap"}, job); });
  EXPECT_EQ(error.code(), Code::failed_precondition);
  EXPECT_THAT(error.what(), HasSubstr("binary log"));
  EXPECT_THAT(error.hint(), HasSubstr("allow_restart"));
  EXPECT_EQ(accounts_of(source), "");
  EXPECT_TRUE(job.journal().steps().empty());
}

TEST(Snapshot, AReplicaWithoutBinaryLogIsNotRestartedForIt) {
  MariadbOptions options;
  options.log_bin = false;
  MariadbServer source(options);
  source.sql("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, MASTER_USER='nobody'");
  MysqlSettings settings = source.settings();
  settings.allow_restart = true;
  SourceParts parts(source, settings);
  FakeJob job(source.dir() / "journal");
  const Error error = error_of([&] { parts.source.open({"snap"}, job); });
  EXPECT_EQ(error.code(), Code::failed_precondition);
  EXPECT_THAT(error.what(), HasSubstr("this is a replica"));
  EXPECT_EQ(accounts_of(source), "");
  EXPECT_TRUE(job.journal().steps().empty());
}

TEST(Snapshot, AMissingToolIsRefusedAndNamed) {
  MariadbServer source;
  MysqlSettings settings = source.settings();
  settings.tools_dir = source.dir() / "no-tools";
  SourceParts parts(source, settings);
  FakeJob job(source.dir() / "journal");
  const Error error = error_of([&] { parts.source.open({"snap"}, job); });
  EXPECT_EQ(error.code(), Code::not_found);
  EXPECT_THAT(error.what(), HasSubstr("mariadb-backup"));
  EXPECT_EQ(accounts_of(source), "");
}

TEST(Snapshot, TablesOutsideOfTheDataDirectoryAreRefusedAndNamed) {
  const TempDir outside("/tmp", "guestagent-elsewhere-");
  MariadbServer source;
  source.sql("CREATE DATABASE d; CREATE TABLE d.far(a INT) DATA DIRECTORY='" + outside.path().string() + "'");
  SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  const Error error = error_of([&] { parts.source.open({"snap"}, job); });
  EXPECT_EQ(error.code(), Code::failed_precondition);
  EXPECT_THAT(error.what(), HasSubstr("far.ibd"));
  source.sql("DROP DATABASE d");
}

TEST(Snapshot, WhatNoReplicaCouldFollowIsRefusedBeforeAnythingIsMade) {
  MariadbServer source(with({"performance_schema=OFF"}));
  SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  const auto refused = [&](const std::string& words) {
    const Error error = error_of([&] { parts.source.open({"snap"}, job); });
    EXPECT_EQ(error.code(), Code::failed_precondition) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(words));
    EXPECT_FALSE(error.hint().empty());
    EXPECT_EQ(accounts_of(source), "");
    EXPECT_TRUE(job.journal().steps().empty());
  };
  source.sql(
      "CREATE DATABASE d; CREATE TABLE d.sessions(a INT PRIMARY KEY, b INT) ENGINE=MEMORY; INSERT INTO d.sessions "
      "VALUES (1, 1)");
  refused("d.sessions (MEMORY)");
  source.sql("DELETE FROM d.sessions");
  source.sql("SET GLOBAL require_secure_transport=ON");
  refused("require_secure_transport");
  source.sql("SET GLOBAL require_secure_transport=OFF");
  EXPECT_NO_THROW(parts.source.open({"snap"}, job)) << "an empty MEMORY table is equal on a replica";
}

// An account that cannot be dropped now keeps neither the lease nor the other parts, and later only that very account
// is dropped.
TEST(Snapshot, WhatCannotBeUndoneNowIsLeftAlone) {
  MariadbServer source(with({"binlog_expire_logs_seconds=86400"}));
  source.sql("CREATE USER agent@localhost; GRANT ALL ON *.* TO agent@localhost WITH GRANT OPTION");
  MysqlSettings settings = source.settings();
  settings.user = "agent";
  SourceParts parts(source, settings);
  const fs::path journal = source.dir() / "journal";
  {
    FakeJob job(journal);
    ServerClient client(local_target(parts.settings));
    parts.accounts.make(client, "snap", Secret("p"), false, job);
  }
  source.sql("REVOKE CREATE USER, DELETE ON *.* FROM agent@localhost");
  {
    FakeJob job(journal);
    try {
      parts.source.recover(job);
      FAIL() << "the account was dropped";
    } catch (const LeftBehind& e) {
      EXPECT_THAT(e.what(), HasSubstr("repl_snap"));
    }
    EXPECT_EQ(expiry_of(source), "86400\n") << "the lease ends in any case";
  }
  source.sql("GRANT CREATE USER, DELETE ON *.* TO agent@localhost");
  // Meanwhile the name is free again and another job has it.
  ServerClient client(local_target(parts.settings));
  FakeJob release(source.dir() / "journal-release");
  parts.accounts.release(client, "repl_snap", release);
  FakeJob later(source.dir() / "journal-later");
  parts.accounts.make(client, "snap", Secret("q"), false, later);
  FakeJob again(journal);
  parts.source.recover(again);
  EXPECT_EQ(accounts_of(source), "repl_snap\n") << "it is the later one";
}

TEST(Snapshot, AnAccountThatWasNeverMadeIsNoReasonToFail) {
  MariadbServer source(with({"binlog_expire_logs_seconds=86400"}));
  SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  ServerClient client(local_target(parts.settings));
  parts.accounts.make(client, "snap", Secret("p"), false, job);
  source.sql(
      "DROP USER repl_snap@'%'; CREATE USER agent@localhost; GRANT SELECT, SUPER, BINLOG ADMIN, SLAVE MONITOR, PROCESS "
      "ON *.* TO agent@localhost");
  MysqlSettings weak = source.settings();
  weak.user = "agent";
  ServerClient agent(local_target(weak));
  EXPECT_NO_THROW(parts.accounts.undo_journal(agent, job));
  EXPECT_EQ(expiry_of(source), "86400\n");
  EXPECT_TRUE(parts.accounts.list().empty());
}

TEST(Snapshot, AServerThatIsDownOrRefusesIsAFailedCheck) {
  MariadbServer source;
  SourceParts parts(source);
  source.stop();
  const Plan plan = parts.source.plan({"snap"});
  ASSERT_EQ(plan.checks.size(), 1U);
  EXPECT_EQ(plan.checks[0].code, Code::unavailable);
}

TEST(Snapshot, ThePlanWarnsOfFiltersAndStatementFormat) {
  MariadbServer source(with({"binlog_do_db=d", "binlog_format=STATEMENT"}));
  SourceParts parts(source);
  const Plan plan = parts.source.plan({"snap"});
  ASSERT_NE(find(plan, "binary log filters"), nullptr);
  EXPECT_EQ(find(plan, "binary log filters")->result, Check::Result::warning);
  EXPECT_EQ(find(plan, "binary log format")->result, Check::Result::warning);
  EXPECT_EQ(find(plan, "tool")->result, Check::Result::ok);
  EXPECT_FALSE(plan.steps.empty());
}

TEST(Snapshot, NamesOfAccountsFitAndDiffer) {
  EXPECT_EQ(replication_user_name("snap_1", 32), "repl_snap_1");
  EXPECT_NE(replication_user_name("Snap", 32), replication_user_name("snap", 32));
  EXPECT_NE(replication_user_name("a.b", 32), replication_user_name("a-b", 32));
  for (const std::size_t max : {16U, 32U}) {
    EXPECT_LE(replication_user_name(std::string(64, 'x'), max).size(), max);
    EXPECT_NE(replication_user_name(std::string(64, 'x'), max), replication_user_name(std::string(63, 'x'), max));
  }
}

// A table that seems to lack its data would make every snapshot of this server fail.
TEST(Snapshot, NoKindOfTableIsTakenForALostOne) {
  MariadbServer source;
  source.sql(
      "CREATE DATABASE d; USE d; CREATE TABLE aria (a INT) ENGINE=Aria; CREATE TABLE myisam (a INT) ENGINE=MyISAM; "
      "CREATE TABLE csv (a INT NOT NULL) "
      "ENGINE=CSV; CREATE TABLE merge (a INT) ENGINE=MERGE UNION=(myisam); CREATE TABLE memory (a INT) ENGINE=MEMORY; "
      "CREATE VIEW v AS SELECT 1; "
      "CREATE SEQUENCE s; CREATE SEQUENCE sa ENGINE=Aria; CREATE TABLE pa (a INT PRIMARY KEY) ENGINE=Aria PARTITION BY "
      "HASH(a) PARTITIONS 3; "
      "CREATE TABLE pm (a INT) ENGINE=MyISAM PARTITION BY RANGE(a) (PARTITION x VALUES LESS THAN (3), PARTITION y "
      "VALUES LESS THAN MAXVALUE); "
      "CREATE TABLE ps (a INT, b DATE) ENGINE=Aria PARTITION BY RANGE(YEAR(b)) SUBPARTITION BY HASH(a) SUBPARTITIONS 2 "
      "(PARTITION x VALUES LESS THAN "
      "(3), PARTITION y VALUES LESS THAN MAXVALUE); CREATE TABLE pi (a INT PRIMARY KEY) PARTITION BY HASH(a) "
      "PARTITIONS 3; "
      "CREATE TABLE `größe.日本 #P#x` (a INT) ENGINE=Aria; SET GLOBAL innodb_file_per_table=0; CREATE TABLE shared (a "
      "INT); "
      "SET GLOBAL innodb_file_per_table=1; CREATE TABLE discarded (a INT); ALTER TABLE discarded DISCARD TABLESPACE; "
      "CREATE TRIGGER tr BEFORE INSERT ON aria FOR EACH ROW SET @x=1");
  SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  auto stream = parts.source.open({"snap"}, job);
  EXPECT_GT(test::drain_to_file(*stream, source.dir() / "snap.xb"), 0U);
}

TEST(Snapshot, ATableWithoutItsDataFailsTheCopy) {
  MariadbServer source;
  source.sql(
      "CREATE DATABASE d; CREATE TABLE d.r1 (a INT) ENGINE=Aria; CREATE TABLE d.whole (a INT) ENGINE=Aria; FLUSH "
      "TABLES");
  // As the tool leaves it when the table was renamed while it ran.
  fs::remove(source.data_dir() / "d/r1.MAI");
  fs::remove(source.data_dir() / "d/r1.MAD");
  SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  auto stream = parts.source.open({"snap"}, job);
  const Error error = error_of([&] { test::drain_to_file(*stream, source.dir() / "snap.xb"); });
  EXPECT_EQ(error.code(), Code::unavailable);
  EXPECT_THAT(error.what(), HasSubstr("table d.r1 (Aria: r1.MAI, r1.MAD)"));
  EXPECT_THAT(error.what(), ::testing::Not(HasSubstr("d.whole")));
}

}  // namespace
}  // namespace guestagent::mysql

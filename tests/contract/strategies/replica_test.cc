// Following a source and ending it, between two real servers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "strategies/mysql/follow/replica_record.h"
#include "strategies/mysql/follow/replica_start.h"
#include "strategies/mysql/follow/replica_stop.h"
#include "strategies/mysql/follow/status.h"
#include "tests/support/copied_server.h"
#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

using test::code_of;
using test::error_of;
using test::FakeJob;
using test::MariadbOptions;
using test::MariadbServer;
using test::SourceAndCopy;
using ::testing::HasSubstr;

class Replica : public ::testing::Test {
 protected:
  AttachOutcome start(SourceAndCopy& pair, std::optional<Millis> catch_up = std::nullopt) {
    AttachRequest request = pair.attach;
    request.catch_up_timeout = catch_up;
    FakeJob job(pair.copy->dir() / ("journal-start" + std::to_string(++jobs_)));
    return start_replicating(settings(pair), state(pair), request, job, system_clock());
  }
  DetachOutcome stop(SourceAndCopy& pair, const DetachRequest& request = {}, const RoleChange& role = {}) {
    FakeJob job(pair.copy->dir() / ("journal-stop" + std::to_string(++jobs_)));
    try {
      return stop_replicating(settings(pair), state(pair), request, role, job, system_clock());
    } catch (const Error&) {
      recover_stop_replicating(settings(pair), state(pair), role, job);  // as the jobs do it
      throw;
    }
  }
  ReplicationStatus status(SourceAndCopy& pair) {
    SourceAccounts accounts(settings(pair), state(pair), system_clock());
    facts_ = collect_status(settings(pair), state(pair), accounts, system_clock());
    return judge(facts_, settings(pair).lag_limit);
  }
  MysqlSettings& settings(SourceAndCopy& pair) {
    if (!settings_) settings_ = pair.copy->settings();
    return *settings_;
  }
  fs::path state(const SourceAndCopy& pair) const { return pair.copy->dir() / "state"; }
  ReplicaStatus channel(SourceAndCopy& pair) {
    return ServerClient(local_target(settings(pair))).replica_status().at(0);
  }
  void wait_for(const std::function<bool()>& what) {
    for (int i = 0; i < 1200 && !what(); ++i) system_clock().sleep(Millis(50), {});
    ASSERT_TRUE(what());
  }
  void wait_equal(SourceAndCopy& pair) {
    ServerClient copy(local_target(settings(pair)));
    ServerClient source(local_target(pair.source->settings()));
    ASSERT_TRUE(copy.wait_applied(source.gtid_binlog(), Seconds(60)));
  }

  StatusFacts facts_;

 private:
  std::optional<MysqlSettings> settings_;
  int jobs_ = 0;
};

const char kSum[] = "SELECT COUNT(*), SUM(CRC32(CONCAT(a, b))) FROM d.t";

TEST_F(Replica, FollowsUnderWritesIsHealthyAndDetachesWithAllThatWasReceived) {
  SourceAndCopy pair;
  test::Writer writer(*pair.source);
  const AttachOutcome outcome = start(pair);
  EXPECT_TRUE(outcome.caught_up);
  EXPECT_EQ(outcome.own.text(), R"({"server_id":2})");
  const ReplicationStatus now = status(pair);
  EXPECT_EQ(now.verdict, ReplicationVerdict::healthy) << ::testing::PrintToString(now.reasons);
  EXPECT_TRUE(facts_.source_now.has_value());
  EXPECT_TRUE(facts_.channels[0].by_gtid);

  writer.stop();
  wait_equal(pair);
  EXPECT_EQ(pair.source->sql(kSum), pair.copy->sql(kSum));

  pair.copy->sql("SET GLOBAL read_only=1");
  ServerClient source(local_target(pair.source->settings()));
  const std::string last = source.gtid_binlog();
  const DetachOutcome detached = stop(pair);
  EXPECT_EQ(position_of(detached.last_applied).gtid, last);
  EXPECT_EQ(pair.copy->sql("SHOW ALL SLAVES STATUS"), "");
  EXPECT_EQ(pair.copy->sql("SELECT @@read_only"), "0\n");
  EXPECT_EQ(status(pair).verdict, ReplicationVerdict::standalone);
  EXPECT_FALSE(load_replica_record(state(pair)).has_value());
  pair.copy->sql("INSERT INTO d.t(b) VALUES ('own')");
}

TEST_F(Replica, FollowsByFileAndPositionWhereThatIsConfigured) {
  SourceAndCopy pair;
  settings(pair).replication = "position";
  EXPECT_TRUE(start(pair).caught_up);
  EXPECT_FALSE(channel(pair).by_gtid);
  pair.source->sql("USE d; INSERT INTO t(b) SELECT 'more' FROM seq_1_to_1000");
  EXPECT_EQ(status(pair).verdict, ReplicationVerdict::healthy);
  const DetachOutcome detached = stop(pair);
  EXPECT_EQ(pair.source->sql(kSum), pair.copy->sql(kSum));
  EXPECT_TRUE(position_of(detached.last_applied).file.has_value());
}

TEST_F(Replica, ASnapshotOfASourceWithoutTransactionsIsFollowed) {
  MariadbOptions copy_options;
  copy_options.server_id = 2;
  copy_options.start = false;
  MariadbServer source;
  MariadbServer copy(copy_options);
  source.sql("RESET MASTER");
  test::SourceParts parts(source);
  FakeJob job(source.dir() / "journal");
  AttachRequest request;
  {
    auto stream = parts.source.open({"snap"}, job);
    test::drain_to_file(*stream, source.dir() / "snap.xb");
    request.snapshot = test::metadata_of(stream->facts(), "snap");
  }
  test::run_on_copy(copy, source.dir() / "snap.xb");
  test::make_table(source, 10);
  FakeJob attach(copy.dir() / "journal");
  EXPECT_TRUE(start_replicating(copy.settings(), copy.dir() / "state", request, attach, system_clock()).caught_up);
  EXPECT_EQ(source.sql(kSum), copy.sql(kSum));
}

TEST_F(Replica, AWrongPasswordFailsSoonWithItsCode) {
  SourceAndCopy pair;
  pair.attach.snapshot.replication_password = Secret("wrong");
  const Error error = error_of([&] { start(pair, Seconds(600)); });
  EXPECT_EQ(error.code(), Code::permission_denied);
  EXPECT_FALSE(error.hint().empty());
}

TEST_F(Replica, ABinaryLogThatIsGoneFailsWithItsCode) {
  SourceAndCopy pair;
  settings(pair).replication = "position";
  pair.source->sql("FLUSH BINARY LOGS; FLUSH BINARY LOGS");
  pair.source->sql("PURGE BINARY LOGS TO 'binlog.000003'");
  std::vector<Check> checks;
  check_source_reachable(settings(pair), pair.attach.snapshot, 2, checks);
  EXPECT_EQ(checks.back().name, "binary logs");
  EXPECT_EQ(checks.back().result, Check::Result::failed);
  const Error error = error_of([&] { start(pair, Seconds(600)); });
  EXPECT_EQ(error.code(), Code::failed_precondition);
  EXPECT_THAT(error.what(), HasSubstr("1236"));
}

TEST_F(Replica, ItsSourcesServerIdIsRefused) {
  SourceAndCopy pair;
  std::vector<Check> checks;
  check_source_reachable(settings(pair), pair.attach.snapshot, 1, checks);
  bool failed = false;
  for (const Check& check : checks)
    failed = failed || (check.name == "server id" && check.result == Check::Result::failed);
  EXPECT_TRUE(failed);
  pair.copy->sql("SET GLOBAL server_id=1");
  const Error error = error_of([&] { start(pair, Seconds(600)); });
  EXPECT_EQ(error.code(), Code::failed_precondition);
  EXPECT_THAT(error.what(), HasSubstr("1593"));
}

TEST_F(Replica, ASourceThatDoesNotAnswerIsAFailedCheck) {
  SourceAndCopy pair;
  pair.attach.snapshot.master_port = test::free_port();
  std::vector<Check> checks;
  check_source_reachable(settings(pair), pair.attach.snapshot, 2, checks);
  ASSERT_EQ(checks.size(), 1U);
  EXPECT_EQ(checks[0].result, Check::Result::failed);
  EXPECT_EQ(checks[0].code, Code::unavailable);
  EXPECT_EQ(code_of([&] { start(pair, Seconds(2)); }), "UNAVAILABLE");
}

TEST_F(Replica, TheTimeIsUpWhileBothThreadsRunIsASuccessThatLags) {
  SourceAndCopy pair;
  // The applying thread waits for a lock that a session holds.
  auto holder = pair.copy->sql_async("BEGIN; SELECT * FROM d.t WHERE a=1 FOR UPDATE; SELECT SLEEP(600)");
  pair.source->sql("UPDATE d.t SET b='blocked' WHERE a=1");
  wait_for([&] {
    return pair.copy->sql("SELECT COUNT(*) FROM information_schema.processlist WHERE INFO LIKE 'SELECT SLEEP%'") ==
           "1\n";
  });
  const AttachOutcome outcome = start(pair, Seconds(2));
  EXPECT_FALSE(outcome.caught_up);
  holder.reset();
}

TEST_F(Replica, TransactionsOfItsOwnAreDiverged) {
  SourceAndCopy pair;
  start(pair);
  EXPECT_EQ(status(pair).verdict, ReplicationVerdict::healthy);
  pair.copy->sql("INSERT INTO d.t(a, b) VALUES (900000000, 'errant')");
  const ReplicationStatus now = status(pair);
  EXPECT_EQ(now.verdict, ReplicationVerdict::diverged);
  EXPECT_THAT(facts_.errant, HasSubstr("-2-"));
  // Also when the source has long overtaken its number.
  pair.source->sql("USE d; INSERT INTO t(b) VALUES (1); INSERT INTO t(b) VALUES (2); INSERT INTO t(b) VALUES (3)");
  wait_equal(pair);
  EXPECT_EQ(status(pair).verdict, ReplicationVerdict::diverged);
}

TEST_F(Replica, AStoppedThreadIsBrokenWhateverTheServersFigureSays) {
  SourceAndCopy pair;
  start(pair);
  pair.copy->sql("STOP SLAVE IO_THREAD");
  EXPECT_EQ(status(pair).verdict, ReplicationVerdict::broken);
  pair.copy->sql("START SLAVE; DELETE FROM d.t WHERE a=1");
  pair.source->sql("UPDATE d.t SET b='missing there' WHERE a=1");
  wait_for([&] { return channel(pair).sql == ThreadState::stopped; });
  const ReplicationStatus now = status(pair);
  EXPECT_EQ(now.verdict, ReplicationVerdict::diverged);
  const JsonDocument document = parse_json(now.errors_json, "errors");
  EXPECT_EQ(JsonReader(document[0], "e").string("thread"), "sql");
}

TEST_F(Replica, ADetachWithAStoppedApplyingThreadIsRefusedUnlessForced) {
  SourceAndCopy pair;
  start(pair);
  pair.copy->sql("DELETE FROM d.t WHERE a=1");
  pair.source->sql("UPDATE d.t SET b='missing there' WHERE a=1");
  wait_for([&] { return channel(pair).sql == ThreadState::stopped; });
  const Error error = error_of([&] { stop(pair); });
  EXPECT_EQ(error.code(), Code::failed_precondition);
  EXPECT_THAT(error.what(), HasSubstr("1032"));
  EXPECT_EQ(channel(pair).io, ThreadState::running) << "it goes on receiving";
  DetachRequest forced;
  forced.force = true;
  EXPECT_NO_THROW(stop(pair, forced));
  EXPECT_EQ(pair.copy->sql("SHOW ALL SLAVES STATUS"), "");
}

TEST_F(Replica, ADetachThatCannotDrainInTimeLeavesItFollowing) {
  SourceAndCopy pair;
  start(pair);
  pair.copy->sql("SET GLOBAL read_only=1");
  auto holder = pair.copy->sql_async("BEGIN; SELECT * FROM d.t WHERE a=1 FOR UPDATE; SELECT SLEEP(600)");
  wait_for([&] {
    return pair.copy->sql("SELECT COUNT(*) FROM information_schema.processlist WHERE INFO LIKE 'SELECT SLEEP%'") ==
           "1\n";
  });
  pair.source->sql("UPDATE d.t SET b='blocked' WHERE a=1");
  ServerClient source(local_target(pair.source->settings()));
  const std::string target = source.gtid_binlog();
  wait_for([&] { return channel(pair).received.gtid == target; });
  DetachRequest request;
  request.drain_timeout = Seconds(2);
  int stayed = 0, left = 0;
  const RoleChange role{[&](ServerClient&) { ++left; }, [&](ServerClient&) { ++stayed; }};
  EXPECT_EQ(code_of([&] { stop(pair, request, role); }), "DEADLINE_EXCEEDED");
  EXPECT_EQ(left, 0);
  EXPECT_EQ(stayed, 1);
  holder.reset();
  wait_for([&] { return channel(pair).io == ThreadState::running; });
  wait_equal(pair);
  EXPECT_EQ(pair.copy->sql("SELECT @@read_only"), "1\n");
  EXPECT_EQ(status(pair).verdict, ReplicationVerdict::healthy);
}

TEST_F(Replica, ADetachWhoseOptionsCannotBeWrittenLeavesItFollowing) {
  SourceAndCopy pair;
  start(pair);
  const RoleChange role{[](ServerClient&) { throw Error(Code::resource_exhausted, "disk full"); }, {}};
  EXPECT_EQ(code_of([&] { stop(pair, {}, role); }), "RESOURCE_EXHAUSTED");
  pair.source->sql("INSERT INTO d.t(b) VALUES ('after')");
  wait_equal(pair);
  EXPECT_EQ(status(pair).verdict, ReplicationVerdict::healthy);
}

TEST_F(Replica, ACrashInTheDrainGoesOnFollowingOneAfterItIsFinished) {
  SourceAndCopy pair;
  start(pair);
  const fs::path journal = pair.copy->dir() / "journal";
  {
    FakeJob job(journal);
    job.journal().record("detach.drain", R"({"receiving":true,"applying":true})");
    pair.copy->sql("STOP SLAVE IO_THREAD");
    EXPECT_THAT(recover_stop_replicating(settings(pair), state(pair), {}, job), HasSubstr("go on following"));
    wait_for([&] { return channel(pair).io == ThreadState::running; });
    job.journal().record("detach.end",
                         R"({"last_applied":{"file":"binlog.000001","position":4,"gtid":"0-1-1","known":"now"}})");
  }
  pair.copy->sql("SET GLOBAL read_only=1");
  FakeJob job(journal);
  int left = 0;
  const RoleChange role{[&](ServerClient&) { ++left; }, {}};
  for (int i = 0; i < 2; ++i)
    EXPECT_THAT(recover_stop_replicating(settings(pair), state(pair), role, job), HasSubstr("finished"));
  EXPECT_EQ(left, 2);
  EXPECT_EQ(pair.copy->sql("SHOW ALL SLAVES STATUS"), "");
  EXPECT_EQ(pair.copy->sql("SELECT @@read_only"), "0\n");
}

TEST_F(Replica, WhatIsNoReplicaCannotBeDetached) {
  MariadbServer server;
  FakeJob job(server.dir() / "journal");
  EXPECT_EQ(code_of([&] { stop_replicating(server.settings(), server.dir() / "state", {}, {}, job, system_clock()); }),
            "FAILED_PRECONDITION");
}

TEST_F(Replica, TheRecordIsForTheAgentAlone) {
  SourceAndCopy pair;
  start(pair);
  EXPECT_EQ(fs::status(state(pair) / "replica.json").permissions() & fs::perms::mask, fs::perms(0600));
  const ReplicationStatus now = status(pair);
  EXPECT_EQ(now.verdict, ReplicationVerdict::healthy);
  std::string told = now.errors_json + now.errant + now.source.value().host;
  for (const std::string& reason : now.reasons) told += reason;
  for (const auto& position : {now.received, now.applied, now.source_position}) told += position.value().text();
  EXPECT_EQ(told.find(pair.attach.snapshot.replication_password.reveal()), std::string::npos);
}

TEST_F(Replica, ASourceWithReplicasSaysSo) {
  SourceAndCopy pair;
  start(pair);
  const StatusFacts facts =
      collect_status(pair.parts->settings, pair.parts->state, pair.parts->accounts, system_clock());
  EXPECT_EQ(judge(facts, Seconds(60)).verdict, ReplicationVerdict::source);
  EXPECT_EQ(facts.replicas, 1U);
}

TEST_F(Replica, AServerThatIsDownIsUnreachableAndNoError) {
  SourceAndCopy pair;
  start(pair);
  pair.copy->stop();
  EXPECT_EQ(status(pair).verdict, ReplicationVerdict::unreachable);
}

TEST_F(Replica, WithACertificateTheAccountRequiresTlsAndTheReplicaVerifiesIt) {
  const TempDir keys("/tmp", "guestagent-keys-");
  const auto key = [&](const char* name) { return (keys.path() / name).string(); };
  ChildSpec openssl;
  openssl.argv = {"/bin/sh", "-c",
                  "cd '" + keys.path().string() +
                      "' && openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=test-ca -keyout ca.key -out "
                      "ca.pem && "
                      "openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout server.key -out server.csr && "
                      "printf 'subjectAltName=IP:127.0.0.1' > ext && "
                      "openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ext "
                      "-out server.pem && "
                      "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=other -keyout other.key -out "
                      "other.pem"};
  run_and_read(std::move(openssl), Seconds(60));
  MariadbOptions source;
  source.lines = {"ssl_ca=" + key("ca.pem"), "ssl_cert=" + key("server.pem"), "ssl_key=" + key("server.key")};
  SourceAndCopy pair(1000, source);
  EXPECT_TRUE(pair.attach.snapshot.require_tls);
  EXPECT_THAT(pair.source->sql("SHOW CREATE USER repl_snap"), HasSubstr("REQUIRE SSL"));

  settings(pair).replication_ca_file = key("other.pem");
  EXPECT_NE(code_of([&] { start(pair, Seconds(600)); }), "DEADLINE_EXCEEDED") << "a certificate of somebody else's";
  for (const char* ca : {"ca.pem", ""}) {
    settings(pair).replication_ca_file = *ca != '\0' ? key(ca) : "";
    EXPECT_TRUE(start(pair).caught_up) << ca;
    EXPECT_TRUE(channel(pair).tls);
    EXPECT_EQ(status(pair).verdict, ReplicationVerdict::healthy) << ca;
    EXPECT_TRUE(facts_.source_now.has_value()) << facts_.not_asked_because;
  }
  pair.attach.snapshot.require_tls = false;
  EXPECT_EQ(code_of([&] { start(pair, Seconds(600)); }), "PERMISSION_DENIED") << "the account insists";
}

TEST_F(Replica, ForceEndsADrainThatDoesNotEndAndSaysWhatIsLost) {
  SourceAndCopy pair;
  pair.copy->sql("SET GLOBAL innodb_lock_wait_timeout=3");
  start(pair);
  auto holder = pair.copy->sql_async("BEGIN; SELECT * FROM d.t WHERE a=1 FOR UPDATE; SELECT SLEEP(600)");
  wait_for([&] {
    return pair.copy->sql("SELECT COUNT(*) FROM information_schema.processlist WHERE INFO LIKE 'SELECT SLEEP%'") ==
           "1\n";
  });
  pair.source->sql("UPDATE d.t SET b='blocked' WHERE a=1");
  ServerClient source(local_target(pair.source->settings()));
  const std::string target = source.gtid_binlog();
  wait_for([&] { return channel(pair).received.gtid == target; });
  DetachRequest request;
  request.drain_timeout = Seconds(1);
  request.force = true;
  FakeJob job(pair.copy->dir() / "journal-force");
  const DetachOutcome outcome = stop_replicating(settings(pair), state(pair), request, {}, job, system_clock());
  EXPECT_NE(position_of(outcome.last_applied).gtid, target);
  ASSERT_EQ(job.warnings().size(), 1U);
  EXPECT_THAT(job.warnings()[0], HasSubstr(target));
  EXPECT_EQ(pair.copy->sql("SHOW ALL SLAVES STATUS"), "");
}

}  // namespace
}  // namespace guestagent::mysql

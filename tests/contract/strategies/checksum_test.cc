// Digests of tables on real servers.
#include "strategies/mysql/follow/checksum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "strategies/mysql/follow/replica_start.h"
#include "strategies/mysql/server/gtid.h"
#include "tests/support/copied_server.h"
#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

using test::code_of;
using test::FakeJob;
using test::MariadbServer;
using test::SourceAndCopy;

struct Answer {
  std::map<std::string, std::string> digests;
  std::map<std::string, std::uint64_t> rows;
  Position at;
};

Answer read(const MariadbServer& server, const std::vector<std::string>& tables = {},
            std::optional<std::uint64_t> sample = {}, const std::optional<Position>& at = {}) {
  const TempDir dir(server.dir(), "job-");
  FakeJob job(dir.path() / "journal");
  Answer out;
  for (const TableChecksum& each :
       checksum_tables(server.settings(), tables, sample, at, out.at, job, system_clock())) {
    out.digests[each.table] = each.digest;
    out.rows[each.table] = each.rows;
  }
  return out;
}

const char kTables[] =
    "CREATE DATABASE d CHARACTER SET utf8mb4; USE d;"
    "CREATE TABLE many(i BIGINT UNSIGNED PRIMARY KEY, f DOUBLE, g FLOAT, n DECIMAL(30,10), t TEXT, b "
    "LONGBLOB, ts TIMESTAMP NULL, dt "
    "DATETIME(6), y YEAR, e ENUM('a','b'), s SET('x','y'), bits BIT(9), j JSON, p POINT, l VARCHAR(20) "
    "CHARACTER SET latin1, "
    "gen BIGINT UNSIGNED AS (i + 1) VIRTUAL);"
    "INSERT INTO many(i,f,g,n,t,b,ts,dt,y,e,s,bits,j,p,l) SELECT seq, seq/7, seq/3, seq/9, CONCAT('größe ', "
    "seq), UNHEX(SHA2(seq,512)), "
    "'2026-01-01 00:00:00' + INTERVAL seq MINUTE, NULL, 2000, 'b', 'x,y', b'101', '{\"a\":1}', POINT(seq, "
    "1), 'é' FROM seq_1_to_3000;"
    "CREATE TABLE `odd``na.me`(`c``1` INT, `order` INT); INSERT INTO `odd``na.me` VALUES "
    "(1,NULL),(NULL,1),(NULL,NULL);"
    "CREATE TABLE empty_one(a INT); CREATE VIEW v AS SELECT 1";

TEST(Checksum, EveryTypeAndNameIsRead) {
  MariadbServer server;
  server.sql(kTables);
  const Answer answer = read(server);
  EXPECT_EQ(answer.digests.size(), 3U) << "views are not read";
  EXPECT_EQ(answer.rows.at("d.many"), 3000U);
  EXPECT_EQ(answer.rows.at("d.odd`na.me"), 3U);
  EXPECT_EQ(answer.rows.at("d.empty_one"), 0U);
  EXPECT_EQ(answer.digests, read(server).digests);
  EXPECT_EQ(read(server, {"d.odd`na.me"}).digests.size(), 1U);
  EXPECT_EQ(code_of([&] { read(server, {"d.none"}); }), "NOT_FOUND");
}

TEST(Checksum, AnyChangeOfOneValueShows) {
  MariadbServer server;
  server.sql(kTables);
  const std::string before = read(server).digests.at("d.many");
  for (const char* set : {"f=f+1e-9", "t=CONCAT(t,' ')", "b=CONCAT(b,'x')", "e='a'", "bits=b'100'", "dt='2026-01-01'",
                          "l='e'", "t=NULL", "ts=ts + INTERVAL 1 SECOND"}) {
    server.sql(std::string("USE d; CREATE TABLE keep LIKE many; INSERT INTO keep(i,f,t,b,e,bits,dt,l,ts) SELECT "
                           "i,f,t,b,e,bits,dt,l,ts FROM many WHERE i=1500; UPDATE many SET ") +
               set + " WHERE i=1500");
    EXPECT_NE(read(server).digests.at("d.many"), before) << set;
    server.sql(
        "USE d; UPDATE many m JOIN keep k USING(i) SET m.f=k.f, m.t=k.t, m.b=k.b, m.e=k.e, m.bits=k.bits, "
        "m.dt=k.dt, m.l=k.l, "
        "m.ts=k.ts; DROP TABLE keep");
    EXPECT_EQ(read(server).digests.at("d.many"), before) << set;
  }
  // Values that move between columns or rows, and rows that are there twice.
  server.sql("USE d; CREATE TABLE two(a INT, b INT); INSERT INTO two VALUES (NULL, 1)");
  const std::string one = read(server).digests.at("d.two");
  server.sql("UPDATE d.two SET a=1, b=NULL");
  EXPECT_NE(read(server).digests.at("d.two"), one);
  server.sql("INSERT INTO d.two VALUES (5, 5), (5, 5)");
  const std::string fives = read(server).digests.at("d.two");
  server.sql("UPDATE d.two SET a=6, b=6 WHERE a=5");
  EXPECT_NE(read(server).digests.at("d.two"), fives);
}

TEST(Checksum, ASampleIsTheSameRowsEverywhere) {
  MariadbServer server;
  server.sql(kTables);
  const Answer whole = read(server), sample = read(server, {}, 10);
  EXPECT_LT(sample.rows.at("d.many"), whole.rows.at("d.many") / 5);
  EXPECT_GT(sample.rows.at("d.many"), 0U);
  EXPECT_EQ(sample.digests, read(server, {}, 10).digests);
}

TEST(Checksum, ReadWhileItIsWrittenItIsThatOfItsPosition) {
  SourceAndCopy pair;
  FakeJob job(pair.copy->dir() / "journal");
  start_replicating(pair.copy->settings(), pair.copy->dir() / "state", pair.attach, job, system_clock());
  Answer source;
  {
    test::Writer writer(*pair.source);
    for (int i = 0; i < 3; ++i) source = read(*pair.source);
  }
  // A third server's view of that position: only the binary log up to it.
  const std::string rows = std::to_string(source.rows.at("d.t"));
  ASSERT_TRUE(source.at.gtid.has_value());
  ServerClient client(local_target(pair.source->settings()));
  EXPECT_TRUE(GtidSet::parse(GtidKind::mariadb, client.gtid_binlog())
                  .contains(GtidSet::parse(GtidKind::mariadb, *source.at.gtid)));

  // When nobody writes any more both answer the same at the same place.
  const Answer last = read(*pair.source);
  const Answer copy = read(*pair.copy, {}, {}, last.at);
  EXPECT_EQ(copy.at.gtid, last.at.gtid);
  EXPECT_EQ(copy.digests, last.digests);
  EXPECT_GE(copy.rows.at("d.t"), std::stoull(rows));
}

TEST(Checksum, OnAFreshCopyThePositionIsThatOfTheCopy) {
  SourceAndCopy pair;
  const std::string set = position_of(pair.attach.snapshot.data_position).gtid.value();
  pair.copy->sql("SET GLOBAL gtid_slave_pos='" + set + "'");
  EXPECT_EQ(read(*pair.copy).at.gtid, set);
}

// The first reading of a MEMORY table after a start is logged by the server: on a replica as a transaction of its own.
TEST(Checksum, OnAReplicaNothingIsLogged) {
  SourceAndCopy pair;
  FakeJob job(pair.copy->dir() / "journal");
  start_replicating(pair.copy->settings(), pair.copy->dir() / "state", pair.attach, job, system_clock());
  pair.source->sql("CREATE TABLE d.mem(a INT) ENGINE=MEMORY; INSERT INTO d.mem VALUES (1)");
  const std::string there = pair.source->sql("SELECT @@gtid_binlog_pos");
  ASSERT_EQ(pair.copy->sql("SELECT MASTER_GTID_WAIT('" + there.substr(0, there.size() - 1) + "', 60)"), "0\n");
  pair.copy->stop();
  pair.copy->start();
  const std::string before = pair.copy->sql("SELECT @@gtid_binlog_state");
  ServerClient(local_target(pair.copy->settings())).data_bytes();
  const Answer answer = read(*pair.copy);
  EXPECT_EQ(answer.rows.at("d.mem"), 0U);
  EXPECT_TRUE(answer.at.gtid);
  EXPECT_EQ(pair.copy->sql("SELECT @@gtid_binlog_state"), before);
}

TEST(Checksum, WritersAreNotBlocked) {
  MariadbServer server;
  test::make_table(server, 1000);
  ServerClient client(local_target(server.settings()));
  client.begin_consistent_read();
  const TableDigest before = client.digest_table("d", "t", std::nullopt, {});
  server.sql("UPDATE d.t SET b='changed'; INSERT INTO d.t(b) VALUES ('new')");
  const TableDigest again = client.digest_table("d", "t", std::nullopt, {});
  EXPECT_EQ(before.digest, again.digest);
  EXPECT_EQ(again.rows, 1000U);
  client.end_consistent_read();
}

TEST(Checksum, APositionThatIsNotReachedByItselfIsToldAtOnce) {
  MariadbServer server;
  test::make_table(server, 10);
  Position never;
  never.gtid = "0-1-999999";
  EXPECT_EQ(code_of([&] { read(server, {}, {}, never); }), "DEADLINE_EXCEEDED");
}

}  // namespace
}  // namespace guestagent::mysql

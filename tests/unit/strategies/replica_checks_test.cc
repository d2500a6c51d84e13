#include "strategies/mysql/source/replica_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace guestagent::mysql {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST(LoggedChange, WhatOnlySetsAndReadsIsNone) {
  for (const char* const sql :
       {"", ";;", "SET GLOBAL a=1; set session b='x;y'", "SELECT 1", "-- INSERT INTO t\nSET a=1", "# DROP TABLE t\n",
        "/* INSERT */ SET a=2;", "SET @a = 'it''s; INSERT INTO t VALUES (1)'", "SET @a='\\'; DROP TABLE t'",
        "SET sql_log_bin = 0; INSERT INTO t VALUES (1)", "SET SESSION sql_log_bin=OFF;\nCREATE DATABASE d;",
        "use d; select f()"}) {
    EXPECT_EQ(first_logged_change(sql), "") << sql;
  }
}

TEST(LoggedChange, IsTheFirstStatementThatMayWrite) {
  struct Row {
    const char* sql;
    const char* first;
  };
  for (const Row& row : {Row{"INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"},
                         Row{"SET a=1;\n create database d;\n DROP DATABASE e", "create database d"},
                         Row{"SET a=1; INSERT INTO t VALUES (';'); SET sql_log_bin=0", "INSERT INTO t VALUES (';')"},
                         Row{"/*!40000 ALTER TABLE t DISABLE KEYS */", "/*!40000 ALTER TABLE t DISABLE KEYS */"},
                         Row{"CALL p()", "CALL p()"}, Row{"-- a note\nUPDATE t SET a=1", "UPDATE t SET a=1"},
                         Row{"SET sql_log_bin=1; TRUNCATE t", "TRUNCATE t"}, Row{"FLUSH TABLES", "FLUSH TABLES"}}) {
    EXPECT_EQ(first_logged_change(row.sql), row.first) << row.sql;
  }
}

TEST(ReplicaHazards, AServerWithoutThemPasses) {
  EXPECT_THAT(check_replica_hazards({}), IsEmpty());
  ReplicaHazards good;
  good.init_replica = "SET SESSION sort_buffer_size=1000000";
  good.init_file = "/etc/mysql/init.sql";
  good.init_file_text = "SET GLOBAL max_connect_errors=10;\n";
  good.row_triggers = "YES";
  EXPECT_THAT(check_replica_hazards(good), IsEmpty());
}

template <typename Set>
ReplicaHazards hazards_with(Set set) {
  ReplicaHazards out;
  set(out);
  return out;
}

TEST(ReplicaHazards, EachIsRefusedByNameAndWithAWayOut) {
  struct Row {
    ReplicaHazards hazards;
    const char* name;
    const char* shown;
  };
  const Row rows[] = {
      {hazards_with([](auto& h) { h.init_replica = "INSERT INTO a.b VALUES (1)"; }), "init_slave",
       "INSERT INTO a.b VALUES (1)"},
      {hazards_with([](auto& h) { h.init_file = "/x/i.sql", h.init_file_text = "CREATE DATABASE d;"; }), "init_file",
       "/x/i.sql has \"CREATE DATABASE d\""},
      {hazards_with([](auto& h) { h.row_triggers = "ENFORCE"; }), "slave_run_triggers_for_rbr", "ENFORCE"},
      {hazards_with([](auto& h) { h.skips_grants = true; }), "skip_grant_tables", "own account"}};
  for (const Row& row : rows) {
    const auto checks = check_replica_hazards(row.hazards);
    ASSERT_THAT(checks, SizeIs(1)) << row.name;
    EXPECT_EQ(checks[0].result, Check::Result::failed);
    EXPECT_THAT(checks[0].message, HasSubstr(row.name));
    EXPECT_THAT(checks[0].message, HasSubstr(row.shown));
    EXPECT_FALSE(checks[0].hint.empty());
  }
}

TEST(ReplicaHazards, AFileThatCannotBeReadIsWarnedOf) {
  const auto checks = check_replica_hazards(hazards_with([](auto& h) { h.init_file = "/root/secret.sql"; }));
  ASSERT_THAT(checks, SizeIs(1));
  EXPECT_EQ(checks[0].result, Check::Result::warning);
  EXPECT_THAT(checks[0].message, HasSubstr("/root/secret.sql"));
}

TEST(ReplicaHazards, ALongStatementIsCutBetweenCharacters) {
  const auto checks = check_replica_hazards(hazards_with([](auto& h) {
    h.init_replica = "INSERT INTO t VALUES ('" + std::string(36, 'x') + "äöü" + std::string(500, 'y') + "')";
  }));
  ASSERT_THAT(checks, SizeIs(1));
  EXPECT_LT(checks[0].message.size(), 300U);
  EXPECT_THAT(checks[0].message, HasSubstr("…"));
}

}  // namespace
}  // namespace guestagent::mysql

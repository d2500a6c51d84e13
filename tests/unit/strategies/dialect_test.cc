#include "strategies/mysql/server/dialect.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

using test::code_of;

TEST(Dialect, VersionOfEachFamilyIsRead) {
  struct Row {
    const char *version, *comment, *text;
  };
  const Row rows[] = {
      {"10.11.19-MariaDB-0+deb12u1-log", "Debian 12", "mariadb-10.11.19"},
      {"11.8.6-MariaDB", "", "mariadb-11.8.6"},
      {"5.5.5-10.4.2-MariaDB-log", "MariaDB Server", "mariadb-10.4.2"},
      {"5.6.24-log", "MySQL Community Server (GPL)", "mysql-5.6.24"},
      {"8.0.36-28", "Percona Server (GPL), Release 28", "percona-8.0.36"},
      {"9.7.4", "MySQL Community Server - GPL", "mysql-9.7.4"},
      {"9.7", "", "mysql-9.7.0"},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(parse_server_version(row.version, row.comment).text(), row.text) << row.version;
    EXPECT_EQ(parse_datastore_version(row.text).text(), row.text);
  }
}

TEST(Dialect, VersionWithoutNumberIsRefused) {
  for (const char* text : {"", "MariaDB", "10", "x.1", "10."}) {
    EXPECT_EQ(code_of([&] { parse_server_version(text, ""); }), "FAILED_PRECONDITION") << text;
  }
  for (const char* text : {"", "mariadb", "mariadb-", "mariadb10.11", "oracle-19.3", "mysql-x"}) {
    EXPECT_EQ(code_of([&] { parse_datastore_version(text); }), "INVALID_ARGUMENT") << text;
  }
}

TEST(Dialect, RowsOfAFamilyFollowEachOtherWithoutGapOrOverlap) {
  std::map<Family, ServerVersion> end;
  for (const Dialect& row : dialects()) {
    EXPECT_LT(row.from, row.before);
    if (const auto it = end.find(row.family); it != end.end()) {
      EXPECT_EQ(row.from, it->second) << row.from.text();
    }
    end[row.family] = row.before;
  }
  EXPECT_EQ(end.size(), 2U);
}

TEST(Dialect, EveryRowHasEveryName) {
  for (const Dialect& row : dialects()) {
    SCOPED_TRACE(row.from.text());
    ASSERT_NE(row.words, nullptr);
    for (const std::string_view name : {row.show_binlog_status,
                                        row.reset_binlogs,
                                        row.gtid_executed,
                                        row.gtid_binlog,
                                        row.gtid_start,
                                        row.gtid_option,
                                        row.gtid_option_off,
                                        row.gtid_wait,
                                        row.gtid_wait_timed_out,
                                        row.create_account,
                                        row.grant_replication,
                                        row.by_hash,
                                        row.by_peer,
                                        row.agent_privileges,
                                        row.tablespace_paths,
                                        row.events,
                                        row.processlist,
                                        row.log_updates,
                                        row.replica_option,
                                        row.words->change_source,
                                        row.words->option_prefix,
                                        row.words->replica,
                                        row.words->show_replica_status,
                                        row.words->stop_all,
                                        row.words->reset_channel,
                                        row.words->position_wait,
                                        row.words->columns.io_running,
                                        row.words->columns.gtid_received,
                                        row.words->columns.gtid_applied}) {
      EXPECT_FALSE(name.empty());
    }
    EXPECT_FALSE(row.purge_variables.empty());
    EXPECT_FALSE(row.backup_tools.empty());
    EXPECT_FALSE(row.info_files.empty());
    EXPECT_FALSE(row.binlog_info_files.empty());
    EXPECT_NE(row.create_account.find("{hash}"), std::string_view::npos);
    // Somewhere the account learns that it must use TLS.
    EXPECT_NE((std::string(row.create_account) + std::string(row.grant_replication)).find("{require}"),
              std::string::npos);
    EXPECT_GE(row.user_name_max, 16U);
  }
}

TEST(Dialect, TheWordsOfEachSeries) {
  const auto of = [](const char* text) -> const Dialect& { return dialect_for(parse_datastore_version(text)); };
  EXPECT_EQ(of("mariadb-10.11.19").words->change_source, "CHANGE MASTER TO");
  EXPECT_EQ(of("mariadb-10.11.19").info_files.front(), "xtrabackup_info");
  EXPECT_EQ(of("mariadb-11.8.6").info_files.front(), "mariadb_backup_info");
  EXPECT_EQ(of("mariadb-12.3.0").words->change_source, "CHANGE MASTER TO");
  EXPECT_EQ(of("mysql-5.6.24").gtid_wait, "WAIT_UNTIL_SQL_THREAD_AFTER_GTIDS");
  EXPECT_FALSE(of("mysql-5.6.24").super_read_only);
  EXPECT_TRUE(of("mysql-5.7.44").super_read_only);
  EXPECT_EQ(of("mysql-5.7.44").account_hash, AccountHash::native);
  EXPECT_EQ(of("mysql-8.0.16").account_hash, AccountHash::caching_sha2);
  EXPECT_EQ(of("mysql-8.0.36").words->change_source, "CHANGE REPLICATION SOURCE TO");
  EXPECT_EQ(of("mysql-8.0.36").show_binlog_status, "SHOW MASTER STATUS");
  EXPECT_EQ(of("mysql-8.4.3").show_binlog_status, "SHOW BINARY LOG STATUS");
  EXPECT_EQ(of("mysql-9.7.4").reset_binlogs, "RESET BINARY LOGS AND GTIDS");
  EXPECT_EQ(of("percona-8.0.36").words, of("mysql-8.0.36").words);
}

// However long a replica follows: no default of the server's lets its account expire, and no global limit counts for
// it.
TEST(Dialect, AnAccountLastsWhereverAServerCanLetItExpire) {
  for (const Dialect& row : dialects()) {
    const bool expires = row.family == Family::mariadb || row.from >= ServerVersion{Family::mysql, 5, 7, 6};
    EXPECT_EQ(row.lasting, expires ? " PASSWORD EXPIRE NEVER ACCOUNT UNLOCK" : "") << row.from.text();
    EXPECT_EQ(row.create_account.find("{lasting}") != std::string_view::npos, expires) << row.from.text();
    EXPECT_NE(
        (std::string(row.create_account) + std::string(row.grant_replication)).find("MAX_USER_CONNECTIONS {limit}"),
        std::string::npos);
    EXPECT_EQ(row.drop_account, expires ? "DROP USER IF EXISTS" : "DROP USER") << row.from.text();
  }
}

TEST(Dialect, AnOldServerIsRefusedAndANewOneSpokenToAsTheNewestKnown) {
  EXPECT_EQ(code_of([] { dialect_for(parse_datastore_version("mariadb-10.1.48")); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([] { dialect_for(parse_datastore_version("mysql-5.5.62")); }), "FAILED_PRECONDITION");
  EXPECT_EQ(&dialect_for(parse_datastore_version("mysql-999.0.0")), &dialects().back());
}

TEST(Dialect, AReplicaIsNeverOlderThanItsSource) {
  const auto why = [](const char* source, const char* target) {
    return unsupported_pair(parse_datastore_version(source), parse_datastore_version(target));
  };
  EXPECT_EQ(why("mariadb-10.11.19", "mariadb-10.11.19"), "");
  EXPECT_EQ(why("mariadb-10.11.19", "mariadb-10.11.5"), "");
  EXPECT_EQ(why("mariadb-10.11.19", "mariadb-11.8.6"), "");
  EXPECT_EQ(why("mysql-8.0.36", "mysql-8.4.3"), "");
  EXPECT_NE(why("mariadb-11.8.6", "mariadb-10.11.19"), "");
  EXPECT_NE(why("mysql-8.0.36", "mysql-8.0.35"), "");
  EXPECT_NE(why("mysql-5.6.24", "mysql-8.0.36"), "");
  EXPECT_NE(why("mysql-8.4.0", "mariadb-11.8.6"), "");
}

}  // namespace
}  // namespace guestagent::mysql

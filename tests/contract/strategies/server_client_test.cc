// The server client against a real server.
#include "strategies/mysql/server/server_client.h"

#include <gtest/gtest.h>

#include "strategies/mysql/server/sql_connection.h"
#include "tests/support/errors.h"
#include "tests/support/mariadb_server.h"

namespace guestagent::mysql {
namespace {

using test::code_of;
using test::error_of;
using test::MariadbOptions;
using test::MariadbServer;

MariadbOptions with_lines(std::vector<std::string> lines) {
  MariadbOptions out;
  out.server_id = 7;
  out.lines = std::move(lines);
  return out;
}

ConnectTarget over_network(const MariadbServer& server, const std::string& user, const std::string& password) {
  ConnectTarget out;
  out.host = "127.0.0.1";
  out.port = server.port();
  out.user = user;
  out.password = Secret(password);
  return out;
}

TEST(ServerClient, IdentityIsTheServers) {
  const MariadbServer server(with_lines({"event_scheduler=ON", "read_only=ON", "innodb_log_file_size=48M"}));
  ServerClient client(local_target(server.settings()));
  const ServerIdentity identity = client.identity();
  EXPECT_EQ(identity.version.family, Family::mariadb);
  EXPECT_EQ(identity.version_text, server.sql("SELECT @@version").substr(0, identity.version_text.size()));
  EXPECT_EQ(identity.server_id, 7U);
  EXPECT_EQ(identity.port, server.port());
  EXPECT_EQ(identity.data_dir, server.data_dir());
  EXPECT_EQ(identity.socket, server.socket());
  EXPECT_TRUE(identity.log_bin);
  EXPECT_TRUE(identity.log_updates);
  EXPECT_TRUE(identity.gtid_on);
  EXPECT_TRUE(identity.read_only);
  EXPECT_TRUE(identity.event_scheduler);
  EXPECT_TRUE(identity.networking);
  EXPECT_EQ(identity.page_size, 16384U);
  EXPECT_EQ(identity.redo_bytes, 48U << 20);
}

TEST(ServerClient, EventsAreKnownAlsoWhereTheirSchedulerIsDisabled) {
  const MariadbServer server(with_lines({"event_scheduler=DISABLED"}));
  ServerClient client(local_target(server.settings()));
  EXPECT_TRUE(client.identity().event_scheduler_disabled);
  EXPECT_TRUE(client.enabled_events().empty());
  EXPECT_FALSE(client.has_user_data());
}

TEST(ServerClient, AServerThatSkipsGrantsIsKnown) {
  const MariadbServer usual;
  EXPECT_FALSE(ServerClient(local_target(usual.settings())).skips_grants());
  const MariadbServer open(with_lines({"skip_grant_tables"}));
  EXPECT_TRUE(ServerClient(local_target(open.settings())).skips_grants());
}

TEST(ServerClient, WhatIsWrittenIsSeenInTheRedoLog) {
  MariadbServer server;
  ServerClient client(local_target(server.settings()));
  const std::uint64_t before = client.redo_written();
  server.sql("CREATE DATABASE d; CREATE TABLE d.t(a LONGTEXT); INSERT INTO d.t VALUES (REPEAT('x', 1000000))");
  EXPECT_GE(client.redo_written() - before, 1000000U);
}

TEST(ServerClient, UserDataIsWhatTheServerDidNotMakeItself) {
  const MariadbServer server;
  ServerClient client(local_target(server.settings()));
  EXPECT_FALSE(client.has_user_data());
  server.sql("CREATE DATABASE test");
  EXPECT_FALSE(client.has_user_data()) << "an installer's empty test database";
  server.sql("CREATE TABLE test.t(a INT)");
  EXPECT_TRUE(client.has_user_data());
  server.sql("DROP DATABASE test; CREATE DATABASE empty_one");
  EXPECT_TRUE(client.has_user_data()) << "an empty database counts";
}

TEST(ServerClient, HostileNamesComeBackAsTheyAre) {
  const MariadbServer server;
  server.sql(
      "CREATE DATABASE `a``b'\\\\c`; CREATE TABLE `a``b'\\\\c`.`t;DROP`(a INT); CREATE DATABASE `größe€`; "
      "CREATE TABLE "
      "`größe€`.`täble`(a INT)");
  ServerClient client(local_target(server.settings()));
  const auto tables = client.user_tables();
  ASSERT_EQ(tables.size(), 2U);
  EXPECT_EQ(tables[0].schema, "a`b'\\\\c");
  EXPECT_EQ(tables[0].name, "t;DROP");
  EXPECT_EQ(tables[1].schema, "größe€");
  EXPECT_EQ(tables[1].name, "täble");
}

// What a server sets for everybody changes neither what the agent says nor what it hears.
TEST(ServerClient, ItsSessionIsItsOwnWhateverTheGlobalsAre) {
  const MariadbServer server(with_lines(
      {"init_connect='this is no SQL'", "character_set_server=latin1", "skip_character_set_client_handshake"}));
  server.sql(
      "SET NAMES utf8mb4; CREATE DATABASE `größe€`; CREATE TABLE `größe€`.`tafel ü`(a INT); CREATE TABLE `größe€`.b(a "
      "INT)");
  const char* const globals[] = {"sql_select_limit=1",
                                 "max_join_size=1",
                                 "sql_big_selects=0",
                                 "tx_read_only=1",
                                 "autocommit=0",
                                 "sql_safe_updates=1",
                                 "sql_mode='ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'",
                                 "group_concat_max_len=4",
                                 "max_statement_time=0.5",
                                 "idle_transaction_timeout=1",
                                 "lock_wait_timeout=0",
                                 "time_zone='+09:00'",
                                 "completion_type=2",
                                 "sql_auto_is_null=1",
                                 "tx_isolation='READ-UNCOMMITTED'",
                                 "wait_timeout=1",
                                 "character_set_results=latin1",
                                 "character_set_client=latin1",
                                 "collation_connection=latin1_german2_ci"};
  const auto look = [&](const std::string& why) {
    ServerClient client(local_target(server.settings()));
    EXPECT_EQ(client.identity().server_id, 7U) << why;
    const auto tables = client.user_tables();
    ASSERT_EQ(tables.size(), 2U) << why;
    EXPECT_EQ(tables[1].schema + "." + tables[1].name, "größe€.tafel ü") << why;
    const std::string before = client.gtid_binlog();
    client.create_replication_account("repl_x", "%", Secret("p"), false, true);
    client.drop_account("repl_x", "%", true);
    EXPECT_NE(client.gtid_binlog(), before) << why;
    EXPECT_TRUE(client.begin_consistent_read().gtid) << why;
    EXPECT_EQ(client.digest_table("größe€", "tafel ü", std::nullopt, {}).rows, 0U) << why;
    client.end_consistent_read();
  };
  look("as they come");
  // One after the other, then all together.
  for (const char* const each : globals) {
    const std::string name = std::string(each).substr(0, std::string(each).find('='));
    const std::string before = server.sql("SELECT @@global." + name);
    server.sql(std::string("SET GLOBAL ") + each);
    look(each);
    // By a session of its own: some of them would refuse this very statement.
    const std::string value = before.substr(0, before.size() - 1);
    const bool number = value.find_first_not_of("0123456789.") == std::string::npos;
    server.sql("SET GLOBAL " + name + "=" + (number ? value : "'" + value + "'"));
  }
  std::string all;
  for (const char* const each : globals) all += std::string("SET GLOBAL ") + each + ";";
  server.sql(all);
  look("all at once");
}

TEST(ServerClient, AServerWithoutAFreeConnectionSaysSo) {
  const MariadbServer server(with_lines({"max_connections=10"}));
  ServerClient maker(local_target(server.settings()));
  maker.create_replication_account("repl_x", "%", Secret("p"), false, false);
  std::vector<std::unique_ptr<ServerClient>> many;
  const Error error = error_of([&] {
    for (int i = 0; i < 12; ++i) {
      many.push_back(std::make_unique<ServerClient>(over_network(server, "repl_x", "p")));
      many.back()->ping();
    }
  });
  EXPECT_EQ(error.code(), Code::unavailable);
  EXPECT_NE(error.hint().find("max_connections"), std::string::npos) << error.hint();
}

// All replicas of a snapshot, and their agents, use one account for years.
TEST(ServerClient, TheReplicationAccountNeitherExpiresNorRunsOutOfConnections) {
  const MariadbServer server(with_lines({"default_password_lifetime=30", "max_user_connections=1"}));
  ServerClient client(local_target(server.settings()));
  client.create_replication_account("repl_x", "%", Secret("p"), false, false);
  client.make_agent_account("agent", "localhost", Secret("p"));
  server.sql(
      "UPDATE mysql.global_priv SET Priv=JSON_SET(Priv, '$.password_last_changed', UNIX_TIMESTAMP()-86400*400) WHERE "
      "User IN "
      "('repl_x', 'agent'); FLUSH PRIVILEGES");
  ServerClient one(over_network(server, "repl_x", "p")), two(over_network(server, "repl_x", "p"));
  EXPECT_NO_THROW(one.ping());
  EXPECT_NO_THROW(two.ping());
  ConnectTarget agent = local_target(server.settings());
  agent.user = "agent";
  agent.password = Secret("p");
  EXPECT_NO_THROW(ServerClient(agent).ping());
}

TEST(ServerClient, AccountsOfAgentsAreToldFromOthers) {
  const MariadbServer server;
  ServerClient client(local_target(server.settings()));
  client.create_replication_account("repl_ours", "%", Secret("p"), false, false);
  server.sql(
      "CREATE USER repl_hand@'%'; GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO repl_hand@'%';"
      "CREATE USER repl_more@'%' WITH MAX_USER_CONNECTIONS 100003; GRANT REPLICATION SLAVE, SELECT ON *.* TO "
      "repl_more@'%';"
      "CREATE USER repl_data@'%' WITH MAX_USER_CONNECTIONS 100003; GRANT REPLICATION SLAVE ON *.* TO repl_data@'%'; "
      "GRANT SELECT ON mysql.* TO repl_data@'%';"
      "CREATE USER repl_none@'%' WITH MAX_USER_CONNECTIONS 100003;"
      "CREATE USER `replXours`@'%' WITH MAX_USER_CONNECTIONS 100003; GRANT REPLICATION SLAVE ON *.* TO `replXours`@'%';"
      "CREATE USER `repl_quo'te`@'10.%' WITH MAX_USER_CONNECTIONS 100003; GRANT REPLICATION SLAVE ON *.* TO "
      "`repl_quo'te`@'10.%'");
  std::string found;
  for (const auto& each : client.replication_accounts("repl_"))
    found += each.user + "@" + each.host + (each.by_agent ? "!" : "") + " ";
  EXPECT_EQ(found, "repl_hand@% repl_ours@%! repl_quo'te@10.%! ");
}

TEST(ServerClient, TheReplicationAccountHasTheLeastRightsAndNoPasswordInAnyLog) {
  const MariadbServer server(with_lines({"general_log=1", "general_log_file=general.log"}));
  ServerClient client(local_target(server.settings()));
  const std::string password = "Se'cr\\et";
  client.create_replication_account("repl_x", "%", Secret(password), false, true);
  EXPECT_NE(server.sql("SHOW GRANTS FOR repl_x").find("GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO"),
            std::string::npos);

  ServerClient replica(over_network(server, "repl_x", password));
  EXPECT_EQ(replica.binlog_status().position.gtid, client.gtid_binlog());
  EXPECT_EQ(code_of([&] { replica.set_read_only(true); }), "PERMISSION_DENIED");

  const std::string general = read_file(server.data_dir() / "general.log", 1 << 24);
  EXPECT_EQ(general.find("Se''cr"), std::string::npos);
  EXPECT_EQ(general.find("cr\\et"), std::string::npos);
  const std::string binlog = read_file(server.data_dir() / "binlog.000001", 1 << 24);
  EXPECT_NE(binlog.find("repl_x"), std::string::npos);
  EXPECT_EQ(binlog.find("cr\\et"), std::string::npos);

  client.drop_account("repl_x", "%", true);
  EXPECT_FALSE(client.account_exists("repl_x", "%"));
  EXPECT_NO_THROW(client.drop_account("repl_x", "%", true)) << "gone already";
}

TEST(ServerClient, AnAccountThatIsNotLoggedLeavesNoTransaction) {
  const MariadbServer server;
  ServerClient client(local_target(server.settings()));
  const std::string before = client.gtid_binlog();
  client.create_replication_account("repl_x", "%", Secret("p"), false, false);
  client.make_agent_account("agent", "localhost", Secret("secret"));
  client.drop_account("repl_x", "%", false);
  EXPECT_EQ(client.gtid_binlog(), before);
  // The session's own binary logging is as it was.
  client.create_replication_account("repl_y", "%", Secret("p"), false, true);
  EXPECT_NE(client.gtid_binlog(), before);
}

TEST(ServerClient, TheAgentsAccountIsMadeAgainWhateverWasThere) {
  const MariadbServer server;
  ServerClient client(local_target(server.settings()));
  ConnectTarget agent = local_target(server.settings());
  agent.user = "agent";
  for (const char* password : {"one", "two"}) {
    client.make_agent_account("agent", "localhost", Secret(password));
    agent.password = Secret(password);
    ServerClient as_agent(agent);
    EXPECT_NO_THROW(as_agent.set_event_scheduler(false));
    EXPECT_NO_THROW(as_agent.set_read_only(false));
    EXPECT_NO_THROW(as_agent.stop_replica());
    EXPECT_NO_THROW(as_agent.create_replication_account("repl_z", "%", Secret("p"), false, true));
    EXPECT_NO_THROW(as_agent.binlog_files());
    EXPECT_NO_THROW(as_agent.enabled_events());
    for (const auto& [name, value] : as_agent.purge_settings())
      EXPECT_NO_THROW(as_agent.set_purge_setting(name, value));
  }
}

TEST(ServerClient, TheAgentsAccountIsMadeOnAServerWithoutGrantTables) {
  MariadbServer server(with_lines({"skip_grant_tables"}));
  ServerClient client(local_target(server.settings()));
  client.make_agent_account("agent", "localhost", Secret("pw"));
  ConnectTarget agent = local_target(server.settings());
  agent.user = "agent";
  agent.password = Secret("pw");
  EXPECT_NO_THROW(ServerClient(agent).identity());
  agent.password = Secret("wrong");
  EXPECT_EQ(code_of([&] { ServerClient(agent).ping(); }), "PERMISSION_DENIED") << "the grant tables are in force";
}

TEST(ServerClient, ItConnectsAgainAfterARestart) {
  MariadbServer server;
  ServerClient client(local_target(server.settings()));
  const std::string before = client.gtid_binlog();
  server.stop();
  const Error error = error_of([&] { client.ping(); });
  EXPECT_EQ(error.code(), Code::unavailable);
  EXPECT_FALSE(error.hint().empty());
  server.start();
  EXPECT_EQ(client.gtid_binlog(), before);
  server.kill();
  server.start();
  EXPECT_EQ(client.gtid_binlog(), before);
}

TEST(ServerClient, AWrongPasswordIsToldWithoutItsText) {
  const MariadbServer server;
  const Error error = error_of([&] { ServerClient(over_network(server, "root", "nothing-like-it")).ping(); });
  EXPECT_EQ(error.code(), Code::permission_denied);
  EXPECT_EQ((std::string(error.what()) + error.hint()).find("nothing-like-it"), std::string::npos);
}

TEST(ServerClient, OnlyPurgeSettingsCanBeSetAndOnlyToNumbers) {
  const MariadbServer server;
  ServerClient client(local_target(server.settings()));
  EXPECT_EQ(client.purge_settings().size(), 1U);
  client.set_purge_setting("binlog_expire_logs_seconds", "86400");
  EXPECT_EQ(client.variable("binlog_expire_logs_seconds"), "86400");
  EXPECT_EQ(code_of([&] { client.set_purge_setting("read_only", "1"); }), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of([&] { client.set_purge_setting("binlog_expire_logs_seconds", "1; SET GLOBAL read_only=1"); }),
            "INVALID_ARGUMENT");
}

TEST(ServerClient, TablesElsewhereAreFound) {
  const TempDir outside("/tmp", "guestagent-elsewhere-");
  const MariadbServer server;
  server.sql("CREATE DATABASE d; CREATE TABLE d.inside(a INT); CREATE TABLE d.outside(a INT) DATA DIRECTORY='" +
             outside.path().string() + "'");
  ServerClient client(local_target(server.settings()));
  const auto found = client.tables_elsewhere();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_NE(found[0].find("outside.ibd"), std::string::npos);
  server.sql("DROP DATABASE d");
}

}  // namespace
}  // namespace guestagent::mysql

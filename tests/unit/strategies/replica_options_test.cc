#include "strategies/mysql/host/replica_options.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>

namespace guestagent::mysql {
namespace {

using Result = Check::Result;

ReplicaOptionFacts configured(Family family, const std::string& name, const std::string& value) {
  ReplicaOptionFacts facts;
  facts.family = family;
  facts.configured.push_back({"/etc/my.cnf", 7, "mysqld", name, value});
  return facts;
}

struct OptionCase {
  Family family;
  std::string name, value;
  Result result;
};

void PrintTo(const OptionCase& row, std::ostream* out) {
  *out << row.name << "=" << row.value;
}

class ReplicaOption : public ::testing::TestWithParam<OptionCase> {};

TEST_P(ReplicaOption, IsFoundInAFileAndOnTheRunningServer) {
  const OptionCase& row = GetParam();
  ReplicaOptionFacts running;
  running.family = row.family;
  running.running[row.name] = row.value.empty() ? "ON" : row.value;
  for (const ReplicaOptionFacts& facts : {configured(row.family, row.name, row.value), running}) {
    const std::vector<Check> checks = check_replica_options(facts);
    ASSERT_EQ(checks.size(), row.result == Result::ok ? 0U : 1U);
    if (row.result == Result::ok) continue;
    EXPECT_EQ(checks[0].result, row.result) << checks[0].message;
    EXPECT_NE(checks[0].message.find(row.name), std::string::npos) << checks[0].message;
    EXPECT_FALSE(checks[0].hint.empty());
    const bool in_file = !facts.configured.empty();
    EXPECT_NE(checks[0].message.find(in_file ? "/etc/my.cnf (line 7)" : "the running server"), std::string::npos)
        << checks[0].message;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Options, ReplicaOption,
    ::testing::Values(OptionCase{Family::mariadb, "wsrep_on", "1", Result::failed},
                      OptionCase{Family::mariadb, "wsrep_on", "", Result::failed},
                      OptionCase{Family::mariadb, "wsrep_on", "OFF", Result::ok},
                      OptionCase{Family::mariadb, "wsrep_cluster_address", "gcomm://10.0.0.1,10.0.0.2", Result::failed},
                      OptionCase{Family::mariadb, "wsrep_provider", "/usr/lib/galera/libgalera_smm.so", Result::ok},
                      // Percona's and Codership's MySQL have it on where there is no cluster.
                      OptionCase{Family::percona, "wsrep_on", "ON", Result::ok},
                      OptionCase{Family::percona, "wsrep_cluster_address", "gcomm://", Result::failed},
                      OptionCase{Family::mysql, "group_replication_group_name", "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
                                 Result::failed},
                      OptionCase{Family::mysql, "group_replication_start_on_boot", "ON", Result::ok},
                      OptionCase{Family::mariadb, "innodb_force_recovery", "1", Result::failed},
                      OptionCase{Family::mysql, "innodb_force_recovery", "6", Result::failed},
                      OptionCase{Family::mariadb, "innodb_force_recovery", "0", Result::ok},
                      OptionCase{Family::mariadb, "innodb_read_only", "ON", Result::failed},
                      OptionCase{Family::mariadb, "replicate_rewrite_db", "a->b", Result::failed},
                      OptionCase{Family::mysql, "replicate_rewrite_db", "a->b", Result::failed},
                      OptionCase{Family::mariadb, "replicate_same_server_id", "1", Result::failed},
                      OptionCase{Family::mariadb, "replicate_do_db", "a", Result::warning},
                      OptionCase{Family::mysql, "replicate_ignore_db", "a", Result::warning},
                      OptionCase{Family::mysql, "replicate_do_table", "a.b", Result::warning},
                      OptionCase{Family::mysql, "replicate_ignore_table", "a.b", Result::warning},
                      OptionCase{Family::mariadb, "replicate_wild_do_table", "a.%", Result::warning},
                      OptionCase{Family::mariadb, "replicate_wild_ignore_table", "a.%", Result::warning},
                      OptionCase{Family::mariadb, "replicate_events_marked_for_skip", "FILTER_ON_SLAVE",
                                 Result::warning},
                      OptionCase{Family::mariadb, "replicate_events_marked_for_skip", "REPLICATE", Result::ok},
                      OptionCase{Family::mariadb, "binlog_do_db", "a", Result::warning},
                      OptionCase{Family::mysql, "binlog_ignore_db", "a", Result::warning},
                      OptionCase{Family::mariadb, "slave_skip_errors", "1062", Result::warning},
                      OptionCase{Family::mariadb, "slave_skip_errors", "OFF", Result::ok},
                      OptionCase{Family::mysql, "replica_skip_errors", "all", Result::warning},
                      OptionCase{Family::mysql, "replica_exec_mode", "IDEMPOTENT", Result::warning},
                      OptionCase{Family::mariadb, "slave_exec_mode", "STRICT", Result::ok},
                      OptionCase{Family::mariadb, "slave_run_triggers_for_rbr", "YES", Result::warning},
                      OptionCase{Family::mariadb, "init_slave", "SET GLOBAL x=1", Result::warning},
                      OptionCase{Family::mysql, "init_replica", "SET GLOBAL x=1", Result::warning},
                      OptionCase{Family::mariadb, "enforce_storage_engine", "Aria", Result::warning},
                      OptionCase{Family::mysql, "disabled_storage_engines", "MyISAM", Result::warning},
                      OptionCase{Family::mariadb, "innodb_read_only_compressed", "ON", Result::warning},
                      OptionCase{Family::mariadb, "relay_log_purge", "0", Result::warning},
                      // What the managed file sets by itself.
                      OptionCase{Family::mariadb, "skip_slave_start", "", Result::ok},
                      OptionCase{Family::mysql, "skip_replica_start", "ON", Result::ok},
                      OptionCase{Family::mariadb, "read_only", "OFF", Result::ok},
                      OptionCase{Family::mariadb, "log_slave_updates", "OFF", Result::ok}));

TEST(ReplicaOptions, TheLastOneCountsButFiltersAddUp) {
  ReplicaOptionFacts facts = configured(Family::mariadb, "innodb_force_recovery", "1");
  facts.configured.push_back({"/etc/z.cnf", 1, "mysqld", "innodb_force_recovery", "0"});
  facts.running["innodb_force_recovery"] = "1";
  EXPECT_TRUE(check_replica_options(facts).empty()) << "the next start is without it";
  facts = configured(Family::mariadb, "upstream.replicate_do_db", "a");
  facts.configured.push_back({"/etc/z.cnf", 1, "mysqld", "replicate_do_db", "0"});
  ASSERT_EQ(check_replica_options(facts).size(), 1U) << "the filter of one connection";
}

TEST(ReplicaOptions, AGroupThatDoesNotStartIsNone) {
  ReplicaOptionFacts facts =
      configured(Family::mysql, "group_replication_group_name", "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa");
  facts.configured.push_back({"/etc/my.cnf", 8, "mysqld", "group_replication_start_on_boot", "OFF"});
  EXPECT_TRUE(check_replica_options(facts).empty());
  facts.group_member = true;
  ASSERT_EQ(check_replica_options(facts).size(), 1U);
  EXPECT_EQ(check_replica_options(facts)[0].name, "cluster");
}

TEST(ReplicaOptions, GtidsMustBeMeantByBoth) {
  ReplicaOptionFacts facts = configured(Family::mysql, "gtid_mode", "ON");
  EXPECT_TRUE(check_replica_options(facts).empty()) << "of the source nothing is known";
  facts.source_is_known = true;
  ASSERT_EQ(check_replica_options(facts).size(), 1U);
  EXPECT_EQ(check_replica_options(facts)[0].result, Result::failed);
  facts.source_has_gtid = true;
  EXPECT_TRUE(check_replica_options(facts).empty());
}

TEST(ReplicaOptions, CommandLineOfAProcess) {
  const auto lines = options_of({"mariadbd", "--skip-slave-start", "--loose-server-id=7", "-u", "word"}, "here");
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0].name + "=" + lines[0].value, "skip_slave_start=");
  EXPECT_EQ(lines[1].name + "=" + lines[1].value, "server_id=7");
  EXPECT_TRUE(command_line_options(-1).empty());
  EXPECT_NO_THROW(command_line_options(::getpid()));
}

TEST(NotInForce, TellsWhatAnotherPlaceOverrides) {
  const std::string text =
      "# a comment = 1\n[mysqld]\nserver_id = 33\nread_only = ON\nevent_scheduler = OFF\nlog_bin = "
      "\"binlog\"\nskip_replica_start = OFF\n"
      "loose_group_replication_start_on_boot = OFF\nreport_port = 1\nunknown_here = ON\n";
  const std::map<std::string, std::string> good = {
      {"server_id", "33"}, {"read_only", "ON"},           {"event_scheduler", "DISABLED"},
      {"log_bin", "ON"},   {"skip_replica_start", "OFF"}, {"report_port", "2"}};
  EXPECT_TRUE(not_in_force(text, good).empty());
  const std::vector<std::pair<std::string, std::string>> others = {{"server_id", "1"},
                                                                   {"read_only", "OFF"},
                                                                   {"event_scheduler", "ON"},
                                                                   {"skip_replica_start", "ON"},
                                                                   {"group_replication_start_on_boot", "ON"}};
  for (const auto& [name, value] : others) {
    auto changed = good;
    changed[name] = value;
    const auto told = not_in_force(text, changed);
    ASSERT_EQ(told.size(), 1U) << name;
    EXPECT_EQ(told[0].rfind(name + " is " + value + ", not ", 0), 0U) << told[0];
  }
  auto levels = good;
  levels["read_only"] = "NO_LOCK_NO_ADMIN";
  EXPECT_TRUE(not_in_force(text, levels).empty());
}

}  // namespace
}  // namespace guestagent::mysql

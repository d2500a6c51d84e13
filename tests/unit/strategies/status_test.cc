#include "strategies/mysql/follow/status.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "strategies/mysql/follow/replica_stop.h"

namespace guestagent::mysql {
namespace {

StatusFacts a_replica() {
  StatusFacts facts;
  facts.reachable = true;
  facts.server_id = 2;
  facts.read_only = true;
  ReplicaStatus channel;
  channel.source_host = "10.0.0.1";
  channel.source_port = 3306;
  channel.source_server_id = 1;
  channel.io = channel.sql = ThreadState::running;
  channel.by_gtid = true;
  channel.received = {"binlog.000001", 900, "0-1-9", false};
  channel.applied = {"binlog.000001", 900, "0-1-9", false};
  channel.seconds_behind = 0;
  facts.channels.push_back(channel);
  facts.source_now = channel.applied;
  facts.reached_after_s = 0.01;
  facts.received_all = true;
  facts.behind = 0;
  return facts;
}

std::string verdict(const StatusFacts& facts) {
  return to_string(judge(facts, Seconds(60)).verdict);
}

TEST(Verdict, OfServersThatFollowNobody) {
  StatusFacts facts;
  facts.unreachable_because = "it is down";
  EXPECT_EQ(verdict(facts), "unreachable");
  EXPECT_EQ(judge(facts, Seconds(60)).reasons.front(), "it is down");
  facts.reachable = true;
  EXPECT_EQ(verdict(facts), "standalone");
  facts.accounts = 1;
  EXPECT_EQ(verdict(facts), "source");
  facts.accounts = 0;
  facts.replicas = 1;
  EXPECT_EQ(verdict(facts), "source");
  facts.restoring = true;
  EXPECT_EQ(verdict(facts), "restoring");
}

TEST(Verdict, AReplicaThatReachesItsSourcesPlaceSoonIsHealthy) {
  const ReplicationStatus out = judge(a_replica(), Seconds(60));
  EXPECT_EQ(out.verdict, ReplicationVerdict::healthy);
  EXPECT_EQ(out.role, ReplicationRole::replica);
  EXPECT_TRUE(out.reasons.empty());
  EXPECT_DOUBLE_EQ(out.lag_seconds.value(), 0.01);
}

TEST(Verdict, AStoppedThreadIsBroken) {
  for (const bool io : {true, false}) {
    StatusFacts facts = a_replica();
    (io ? facts.channels[0].io : facts.channels[0].sql) = ThreadState::stopped;
    EXPECT_EQ(verdict(facts), "broken");
    EXPECT_FALSE(judge(facts, Seconds(60)).lag_seconds.has_value());
    EXPECT_EQ(judge(facts, Seconds(60)).reasons.size(), 1U);
  }
}

TEST(Verdict, AThreadThatCannotConnectIsBrokenOneThatConnectsNowIsNot) {
  StatusFacts facts = a_replica();
  facts.source_now.reset();
  facts.reached_after_s.reset();
  facts.channels[0].io = ThreadState::connecting;
  EXPECT_EQ(verdict(facts), "lagging");
  facts.channels[0].io_errno = 1045;
  facts.channels[0].io_error = "Access denied";
  EXPECT_EQ(verdict(facts), "broken");
}

TEST(Verdict, ASecondChannelThatIsBrokenBreaksTheWhole) {
  StatusFacts facts = a_replica();
  facts.channels.push_back(facts.channels[0]);
  facts.channels[1].channel = "other";
  facts.channels[1].sql = ThreadState::stopped;
  EXPECT_EQ(verdict(facts), "broken");
}

TEST(Verdict, TransactionsOfItsOwnOrARowConflictMeanDiverged) {
  StatusFacts facts = a_replica();
  facts.errant = "0-2-10";
  EXPECT_EQ(verdict(facts), "diverged");
  facts = a_replica();
  facts.channels[0].sql = ThreadState::stopped;
  facts.channels[0].sql_errno = 1062;
  facts.channels[0].sql_error = "Duplicate entry";
  EXPECT_EQ(verdict(facts), "diverged");
}

// The server says 0 seconds while hours of transactions have not even been received.
TEST(Verdict, AZeroOfTheServerIsNotBelievedWhileItStillReceives) {
  StatusFacts facts = a_replica();
  facts.reached_after_s.reset();
  facts.received_all = false;
  facts.waited_s = 0.5;
  facts.behind = 70000;
  const ReplicationStatus out = judge(facts, Seconds(60));
  EXPECT_EQ(out.verdict, ReplicationVerdict::lagging);
  EXPECT_FALSE(out.lag_seconds.has_value());
}

TEST(Verdict, WhenAllIsReceivedTheServersFigureCounts) {
  StatusFacts facts = a_replica();
  facts.reached_after_s.reset();
  facts.waited_s = 0.5;
  facts.behind = 12;
  facts.channels[0].seconds_behind = 61;
  EXPECT_EQ(verdict(facts), "lagging");
  facts.channels[0].seconds_behind = 59;
  EXPECT_EQ(verdict(facts), "healthy");
  EXPECT_DOUBLE_EQ(judge(facts, Seconds(60)).lag_seconds.value(), 59);
  // Not reached within half a second: no less than that.
  facts.channels[0].seconds_behind = 0;
  EXPECT_DOUBLE_EQ(judge(facts, Seconds(60)).lag_seconds.value(), 0.5);
}

TEST(Verdict, WithoutTheSourcesPlaceAFreshReplicaIsNotCalledHealthy) {
  StatusFacts facts = a_replica();
  facts.source_now.reset();
  facts.reached_after_s.reset();
  facts.behind.reset();
  facts.not_asked_because = "refused";
  EXPECT_EQ(verdict(facts), "healthy");
  facts.channels[0].received.offset = 4;
  EXPECT_EQ(verdict(facts), "lagging");
  EXPECT_FALSE(judge(facts, Seconds(60)).lag_seconds.has_value());
}

TEST(Verdict, ADelayOnPurposeIsAllowedFor) {
  StatusFacts facts = a_replica();
  facts.channels[0].delay = 3600;
  facts.channels[0].seconds_behind = 3630;
  facts.reached_after_s.reset();
  EXPECT_EQ(verdict(facts), "healthy");
  facts.channels[0].seconds_behind = 3700;
  EXPECT_EQ(verdict(facts), "lagging");
}

TEST(Status, TellsWhatIsKnownOfAReplica) {
  StatusFacts facts = a_replica();
  facts.reached_after_s = 0.0126;
  facts.channels[0].io_errno = 1236;
  facts.channels[0].io_error = "gone \xff";
  const ReplicationStatus out = judge(facts, Seconds(60));
  EXPECT_EQ(out.role, ReplicationRole::replica);
  EXPECT_EQ(out.verdict, ReplicationVerdict::healthy);
  EXPECT_EQ(out.own.text(), R"({"server_id":2})");
  EXPECT_EQ(out.source.value().own.text(), R"({"server_id":1})");
  EXPECT_EQ(out.read_only, true);
  EXPECT_EQ(out.source.value().host, "10.0.0.1");
  ASSERT_EQ(out.threads.size(), 2U);
  EXPECT_EQ(out.threads[0].name, "io_thread");
  EXPECT_FALSE(out.threads[0].applies);
  EXPECT_EQ(out.threads[1].name, "sql_thread");
  EXPECT_TRUE(out.threads[1].applies);
  EXPECT_TRUE(out.threads[1].running());
  EXPECT_DOUBLE_EQ(out.lag_seconds.value(), 0.013);
  EXPECT_EQ(out.lag_transactions, 0U);
  for (const auto& position : {out.received, out.applied, out.source_position}) {
    EXPECT_EQ(position_of(position.value()).gtid, "0-1-9");
  }
  const JsonDocument errors = parse_json(out.errors_json, "errors");
  ASSERT_EQ(errors.Size(), 1U);
  const JsonReader error(errors[0], "error");
  EXPECT_EQ(error.string("thread"), "io");
  EXPECT_EQ(error.uint("code"), 1236U);
}

TEST(Status, WhatAReplicaDoesDecidesWhetherItCanBeDetached) {
  const auto failed = [](const ReplicationStatus& status, bool force = false) {
    std::string out;
    for (const Check& check : plan_stop(status, {.force = force}).checks)
      if (check.result == Check::Result::failed) out += check.name + ";";
    return out;
  };
  ReplicationStatus status = judge(a_replica(), Seconds(60));
  ASSERT_EQ(status.numbers.size(), 1U);
  EXPECT_EQ(failed(status), "");
  status.threads.at(1).state = ThreadState::stopped;
  EXPECT_EQ(failed(status), "sql thread;");
  EXPECT_EQ(failed(status, true), "");
  StatusFacts alone;
  alone.reachable = true;
  EXPECT_EQ(failed(judge(alone, Seconds(60))), "replica;sql thread;");
}

TEST(Status, AnUnreachableServerHasNoFieldsOfAServer) {
  StatusFacts facts;
  facts.unreachable_because = "down";
  const ReplicationStatus out = judge(facts, Seconds(60));
  EXPECT_EQ(out.verdict, ReplicationVerdict::unreachable);
  EXPECT_EQ(out.own.text(), "{}");
  EXPECT_FALSE(out.role.has_value());
  EXPECT_TRUE(out.threads.empty());
}

TEST(Status, ItsWordsAreReadBack) {
  for (const std::string_view name : kReplicationVerdicts.texts)
    EXPECT_EQ(to_string(kReplicationVerdicts.value(name).value()), name);
  for (const std::string_view name : kReplicationRoles.texts)
    EXPECT_EQ(to_string(kReplicationRoles.value(name).value()), name);
  EXPECT_EQ(to_string(ReplicationVerdict::unreachable), "unreachable");
  EXPECT_EQ(to_string(ReplicationRole::standalone), "standalone");
  EXPECT_FALSE(kReplicationVerdicts.value("").has_value());
  EXPECT_FALSE(kReplicationRoles.value("unreachable").has_value());
}

}  // namespace
}  // namespace guestagent::mysql

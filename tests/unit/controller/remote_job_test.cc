#include "controller/remote_job.h"

#include <gmock/gmock.h>

#include "scripted_agents.h"
#include "tests/support/fake_clock.h"

namespace guestagent::controller {
namespace {

using testing::HasSubstr;

AgentAccessSettings settings() {
  AgentAccessSettings out;
  out.lost_after = Seconds(60);
  out.busy_timeout = Seconds(600);
  return out;
}

struct Outcome {
  JobEnd end;
  JobView last;
};

Outcome run(ScriptedAgents& agents, FakeClock& clock, bool cancelled = false) {
  const AgentAccessSettings access = settings();
  JobRunner runner(agents, access, clock);
  Outcome out;
  out.end = runner.run(
      {"unix:/a", "get_replication_snapshot", "j1", R"({"snapshot_id":"s1"})"}, [&] { return cancelled; },
      [&](const JobView& view) { out.last = view; }, {});
  return out;
}

constexpr const char* kRunning =
    R"({"job_id":"j1","state":"running","phase":"copy","progress":{"done_bytes":5,"total_bytes":10}})";
constexpr const char* kDone =
    R"({"job_id":"j1","state":"succeeded","phase":"","result":{"answer":42},"progress":{"done_bytes":10}})";

TEST(JobRunner, AsksOnceAndFollows) {
  ScriptedAgents agents([](const auto& call, int nth) -> std::string {
    if (call.method == "get_job") return nth < 3 ? kRunning : kDone;
    return R"({"job_id":"j1"})";
  });
  FakeClock clock;
  const Outcome out = run(agents, clock);
  EXPECT_EQ(out.end.how, JobEnd::How::succeeded);
  EXPECT_EQ(out.end.result, R"({"answer":42})");
  ASSERT_EQ(agents.calls("get_replication_snapshot").size(), 1u);
  EXPECT_EQ(agents.calls()[0].params, R"({"snapshot_id":"s1","job_id":"j1","async":true})");
}

TEST(JobRunner, AsksAgainWithTheSameIdUntilItHasAnAnswer) {
  ScriptedAgents agents([](const auto& call, int nth) -> std::string {
    if (call.method == "get_job") return kDone;
    if (nth < 4) throw silence();
    return R"({"job_id":"j1"})";
  });
  FakeClock clock;
  EXPECT_EQ(run(agents, clock).end.how, JobEnd::How::succeeded);
  const auto asked = agents.calls("get_replication_snapshot");
  ASSERT_EQ(asked.size(), 4u);
  for (const auto& call : asked) EXPECT_EQ(call.params, asked[0].params);
}

TEST(JobRunner, GivesASilentAgentUpOnlyAfterItsTime) {
  ScriptedAgents agents([](const auto& call, int nth) -> std::string {
    if (call.method != "get_job") return "{}";
    if (nth == 1) return kRunning;
    throw silence();
  });
  FakeClock clock;
  const SteadyTime begun = clock.steady();
  const Outcome out = run(agents, clock);
  EXPECT_EQ(out.end.how, JobEnd::How::lost);
  EXPECT_EQ(out.end.error.code, "UNAVAILABLE");
  EXPECT_THAT(out.end.error.message, HasSubstr("nobody is there"));
  EXPECT_GT(clock.steady() - begun, Seconds(60));
  EXPECT_LT(clock.steady() - begun, Seconds(70));
}

TEST(JobRunner, ShortSilenceIsForgiven) {
  ScriptedAgents agents([](const auto& call, int nth) -> std::string {
    if (call.method != "get_job") return "{}";
    if (nth == 60) return kDone;
    if (nth % 30 != 0) throw silence();
    return kRunning;
  });
  FakeClock clock;
  EXPECT_EQ(run(agents, clock).end.how, JobEnd::How::succeeded);
}

TEST(JobRunner, WaitsForABusyAgentAndSaysSo) {
  ScriptedAgents agents([](const auto& call, int nth) -> std::string {
    if (call.method == "get_job") return kDone;
    if (nth < 100) throw Error(Code::busy, "job other runs");
    return "{}";
  });
  FakeClock clock;
  EXPECT_EQ(run(agents, clock).end.how, JobEnd::How::succeeded);

  ScriptedAgents always([](const auto&, int) -> std::string { throw Error(Code::busy, "job other runs"); });
  const Outcome out = run(always, clock);
  EXPECT_EQ(out.end.how, JobEnd::How::failed);
  EXPECT_EQ(out.end.error.code, "BUSY");
  EXPECT_THAT(out.last.note, HasSubstr("job other runs"));
}

TEST(JobRunner, TellsTheJobsOwnError) {
  ScriptedAgents agents([](const auto& call, int) -> std::string {
    if (call.method != "get_job") return "{}";
    return R"({"job_id":"j1","state":"failed","error":{"code":-32008,"message":"no space","data":{"code":"RESOURCE_EXHAUSTED","hint":"h"}}})";
  });
  FakeClock clock;
  const Outcome out = run(agents, clock);
  EXPECT_EQ(out.end.how, JobEnd::How::failed);
  EXPECT_EQ(out.end.error.code, "RESOURCE_EXHAUSTED");
  EXPECT_EQ(out.end.error.message, "no space");
  EXPECT_EQ(out.end.error.hint, "h");
}

TEST(JobRunner, AStateThatIsUnknownIsAFailureThatNamesIt) {
  ScriptedAgents agents([](const auto& call, int) -> std::string {
    return call.method == "get_job" ? R"({"job_id":"j1","state":"suspended"})" : "{}";
  });
  FakeClock clock;
  const Outcome out = run(agents, clock);
  EXPECT_EQ(out.end.how, JobEnd::How::failed);
  EXPECT_THAT(out.end.error.message, HasSubstr("suspended"));
}

TEST(JobRunner, ARefusalIsTheEnd) {
  ScriptedAgents agents([](const auto&, int) -> std::string { throw Error(Code::invalid_argument, "unknown key"); });
  FakeClock clock;
  EXPECT_EQ(run(agents, clock).end.how, JobEnd::How::failed);
  EXPECT_EQ(agents.calls().size(), 1u);
}

TEST(JobRunner, BeginsAgainWhereTheAgentForgotTheJob) {
  ScriptedAgents agents([](const auto& call, int nth) -> std::string {
    if (call.method != "get_job") return "{}";
    if (nth == 1) throw Error(Code::not_found, "no job j1");
    return kDone;
  });
  FakeClock clock;
  EXPECT_EQ(run(agents, clock).end.how, JobEnd::How::succeeded);
  EXPECT_EQ(agents.calls("get_replication_snapshot").size(), 2u);
}

TEST(JobRunner, CancelOfWhatNeverBeganAsksForNothing) {
  ScriptedAgents agents([](const auto&, int) -> std::string { throw Error(Code::not_found, "no job j1"); });
  FakeClock clock;
  EXPECT_EQ(run(agents, clock, true).end.how, JobEnd::How::cancelled);
  EXPECT_TRUE(agents.calls("get_replication_snapshot").empty());
}

TEST(JobRunner, CancelThatComesTooLateIsASuccess) {
  ScriptedAgents agents([](const auto& call, int nth) -> std::string {
    if (call.method == "cancel_job") throw Error(Code::failed_precondition, "it has ended");
    return nth == 1 ? kRunning : kDone;
  });
  FakeClock clock;
  EXPECT_EQ(run(agents, clock, true).end.how, JobEnd::How::succeeded);
  EXPECT_EQ(agents.calls("cancel_job").size(), 1u);
}

TEST(JobRunner, AnswersThatAreNoneCountAsSilence) {
  ScriptedAgents agents([](const auto& call, int) -> std::string { return call.method == "get_job" ? "[]" : "{}"; });
  FakeClock clock;
  EXPECT_EQ(run(agents, clock).end.how, JobEnd::How::lost);
}

// Whether the agent never answered, fell silent in the middle, or says what is no answer.
TEST(JobRunner, CancelEndsTheWaitForASilentAgentAtOnce) {
  for (const int answers : {0, 1, 5}) {
    for (const bool nonsense : {false, true}) {
      bool cancelled = answers == 0;
      ScriptedAgents agents([&](const auto& call, int nth) -> std::string {
        if (call.method == "cancel_job") throw silence();
        if (call.method != "get_job" && answers != 0) return "{}";
        if (call.method == "get_job" && nth <= answers) return kRunning;
        cancelled = true;
        if (nonsense && call.method == "get_job") return "[]";
        throw silence();
      });
      FakeClock clock;
      const AgentAccessSettings access = settings();
      JobRunner runner(agents, access, clock);
      const SteadyTime begun = clock.steady();
      const JobEnd end = runner.run(
          {"unix:/a", "attach_replication_slave", "j1", "{}"}, [&] { return cancelled; }, [](const JobView&) {}, {});
      EXPECT_EQ(end.how, JobEnd::How::lost) << answers << nonsense;
      EXPECT_EQ(end.error.code, "CANCELLED");
      EXPECT_LT(clock.steady() - begun, Seconds(10)) << answers << nonsense;  // by the fake clock
    }
  }
}

TEST(JobRunner, InAHurryNobodyIsWaitedForAndNothingIsStopped) {
  const AgentAccessSettings access = settings();
  const auto ends = [&](const Error& error) {
    ScriptedAgents agents([&](const auto&, int) -> std::string {
      if (error.code() == Code::unavailable) throw NoAnswer(error);
      throw error;
    });
    FakeClock clock;
    JobRunner runner(agents, access, clock);
    const SteadyTime begun = clock.steady();
    const JobEnd end = runner.run(
        {"unix:/a", "delete_replication_snapshot", "j1", "{}"}, [] { return false; }, [](const JobView&) {}, {},
        [] { return true; });
    EXPECT_LT(clock.steady() - begun, Seconds(1));
    EXPECT_TRUE(agents.calls("cancel_job").empty());
    return end.how;
  };
  EXPECT_EQ(ends(Error(Code::unavailable, "nobody")), JobEnd::How::lost);
  EXPECT_EQ(ends(Error(Code::busy, "job other runs")), JobEnd::How::failed);
}

TEST(JobRunner, WhatIsOnlyToBeFollowedIsNeverBegun) {
  const AgentAccessSettings access = settings();
  FakeClock clock;
  ScriptedAgents agents([](const auto& call, int nth) -> std::string {
    if (nth == 1) return kRunning;
    throw Error(Code::not_found, "no job " + call.method);
  });
  JobRunner runner(agents, access, clock);
  const JobEnd end = runner.run(
      {"unix:/a", "m", "j1", "{}", false}, [] { return false; }, [](const JobView&) {}, {});
  EXPECT_EQ(end.how, JobEnd::How::failed);
  EXPECT_EQ(end.error.code, "NOT_FOUND");
  EXPECT_EQ(agents.calls().size(), 2u);
  EXPECT_EQ(agents.calls("get_job").size(), 2u);
}

TEST(JobRunner, InAHurryAJobThatDoesNotStopIsLeft) {
  const AgentAccessSettings access = settings();
  FakeClock clock;
  ScriptedAgents agents([](const auto&, int) -> std::string { return kRunning; });
  JobRunner runner(agents, access, clock);
  const SteadyTime begun = clock.steady();
  const JobEnd end = runner.run(
      {"unix:/a", "m", "j1", "{}"}, [] { return true; }, [](const JobView&) {}, {},
      [&] { return clock.steady() - begun > Seconds(60); });
  EXPECT_EQ(end.how, JobEnd::How::lost);
  EXPECT_EQ(agents.calls("cancel_job").size(), 1u);
  EXPECT_LT(clock.steady() - begun, Seconds(70));
}

TEST(JobRunner, TheSnapshotsPlaceIsShownWhileItIsMade) {
  const AgentAccessSettings access = settings();
  FakeClock clock;
  ScriptedAgents agents([](const auto& call, int nth) -> std::string {
    if (call.method != "get_job") return "{}";
    return nth == 1 ? R"({"state":"running","snapshot_href":"h"})" : R"({"state":"succeeded","snapshot_href":"h"})";
  });
  JobRunner runner(agents, access, clock);
  std::vector<std::string> seen;
  runner.run(
      {"unix:/a", "m", "j1", "{}"}, [] { return false; },
      [&](const JobView& view) { seen.push_back(view.snapshot_href); }, {});
  EXPECT_THAT(seen, testing::ElementsAre("h", ""));
}

TEST(JobRunner, ATotalThatWasPassedIsNone) {
  ScriptedAgents agents([](const auto& call, int nth) -> std::string {
    if (call.method != "get_job") return "{}";
    return nth == 1 ? R"({"job_id":"j1","state":"running","progress":{"done_bytes":96,"total_bytes":85,"eta_s":0}})"
                    : kDone;
  });
  FakeClock clock;
  const AgentAccessSettings access = settings();
  JobRunner runner(agents, access, clock);
  std::vector<JobView> seen;
  runner.run(
      {"unix:/a", "m", "j1", "{}"}, [] { return false; }, [&](const JobView& view) { seen.push_back(view); }, {});
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen[0].done_bytes, 96u);
  EXPECT_FALSE(seen[0].total_bytes);
  EXPECT_FALSE(seen[0].eta_s);
  EXPECT_TRUE(seen[0].past_total);
}

TEST(JobRunner, StopLeavesTheJobAlone) {
  ScriptedAgents agents([](const auto&, int) -> std::string { return kRunning; });
  FakeClock clock;
  const AgentAccessSettings access = settings();
  JobRunner runner(agents, access, clock);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THROW(runner.run(
                   {"unix:/a", "m", "j1", "{}"}, [] { return false; }, [](const JobView&) {}, stop.get_token()),
               Error);
  EXPECT_TRUE(agents.calls("cancel_job").empty());
}

TEST(JobRunner, FindsOutHowALostJobEnded) {
  FakeClock clock;
  const AgentAccessSettings access = settings();
  std::string answer = kDone;
  Code refusal = Code::internal;
  ScriptedAgents agents([&](const auto& call, int) -> std::string {
    if (call.method == "cancel_job") return "{}";
    if (answer.empty()) throw Error(refusal, "");
    return answer;
  });
  JobRunner runner(agents, access, clock);
  EXPECT_EQ(runner.find_out("unix:/a", "j1", {})->how, JobEnd::How::succeeded);
  answer = kRunning;
  EXPECT_FALSE(runner.find_out("unix:/a", "j1", {}));
  EXPECT_EQ(agents.calls("cancel_job").size(), 1u);
  answer.clear();
  EXPECT_FALSE(runner.find_out("unix:/a", "j1", {}));
  refusal = Code::not_found;
  EXPECT_EQ(runner.find_out("unix:/a", "j1", {})->how, JobEnd::How::failed);
}

}  // namespace
}  // namespace guestagent::controller

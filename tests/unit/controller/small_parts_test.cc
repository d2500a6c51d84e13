// The parts without a state of their own: picking hosts, reading bodies and addresses, judging a status.
#include <gmock/gmock.h>

#include "controller/agent_address.h"
#include "controller/api_requests.h"
#include "controller/cleaner.h"
#include "controller/monitor.h"
#include "controller/provision.h"
#include "controller/views.h"
#include "tests/support/errors.h"

namespace guestagent::controller {
namespace {

using test::code_of;
using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;

Instance host(const std::string& id, const std::string& flavor, const std::string& zone, std::uint64_t size,
              const std::string& nics = "[]") {
  Instance out;
  out.id = id;
  out.host = {flavor, zone, size, nics};
  return out;
}

TEST(PickHosts, TakesWhatFitsWithTheLeastWaste) {
  const std::vector<Instance> spare = {host("a", "7", "x", 100), host("b", "7", "x", 10), host("c", "8", "x", 10),
                                       host("d", "7", "y", 20)};
  EXPECT_THAT(pick_hosts(spare, {}, 2), ElementsAre("a", "b"));
  EXPECT_THAT(pick_hosts(spare, {"7", "", 5, "[]"}, 3), ElementsAre("b", "d", "a"));
  EXPECT_THAT(pick_hosts(spare, {"7", "x", 50, "[]"}, 1), ElementsAre("a"));
}

TEST(PickHosts, HostsOnWhichSomethingFailedComeLast) {
  std::vector<Instance> spare = {host("a", "", "", 0), host("b", "", "", 0)};
  spare[0].last_error = "it failed";
  EXPECT_THAT(pick_hosts(spare, {}, 1), ElementsAre("b"));
}

TEST(PickHosts, EachWantedNicMustBeThere) {
  const std::vector<Instance> spare = {host("a", "", "", 0, R"([{"net-id":"1"}])"),
                                       host("b", "", "", 0, R"([{"net-id":"2"},{"net-id":"1"}])")};
  EXPECT_THAT(pick_hosts(spare, {"", "", 0, R"([{"net-id":"1"},{"net-id":"2"}])"}, 1), ElementsAre("b"));
}

TEST(PickHosts, SaysWhatIsMissing) {
  const std::vector<Instance> spare = {host("a", "7", "x", 100), host("b", "8", "y", 10)};
  EXPECT_THAT(error_of([&] {
                pick_hosts(spare, {"9", "", 0, "[]"}, 1);
              }).what(),
              HasSubstr("flavor 9: no free host has it (there are: 7, 8)"));
  EXPECT_THAT(error_of([&] {
                pick_hosts(spare, {"7", "y", 0, "[]"}, 1);
              }).what(),
              HasSubstr("only 0 of the 2 free hosts fit (flavor 7, availability_zone y)"));
  EXPECT_THAT(error_of([&] { pick_hosts({}, {}, 1); }).what(), HasSubstr("no registered host is free"));
  EXPECT_EQ(code_of([&] { pick_hosts(spare, {}, 3); }), "FAILED_PRECONDITION");
}

class Exec : public testing::Test {
 protected:
  std::string make(const std::string& script, Millis timeout = Seconds(20)) {
    ProvisionerSettings settings;
    settings.kind = "exec";
    settings.command = {"/bin/sh", "-c", script, "make-host"};
    settings.timeout = timeout;
    Instance instance = host("i-1", "7", "x", 5);
    instance.name = "slave1";
    AgentAccessSettings agents;
    agents.ca_file = "/ca";
    agents.socket_dirs = {"/"};
    return make_provisioner(settings, agents)->make(instance, false, {});
  }
};

TEST_F(Exec, AnswersTheLastLineThatTheCommandPrints) {
  EXPECT_EQ(make("echo making; echo https://10.0.0.7:8443; echo"), "https://10.0.0.7:8443");
}

TEST_F(Exec, GetsTheInstanceAsJson) {
  TempDir dir(fs::temp_directory_path(), "exec");
  make("printf '%s %s' \"$1\" \"$2\" > " + (dir.path() / "got").string() + "; echo unix:/a");
  EXPECT_EQ(read_file(dir.path() / "got"),
            R"(create {"id":"i-1","name":"slave1","flavor":"7","availability_zone":"x","volume_size":5,"nics":[]})");
}

TEST_F(Exec, FailuresSayWhatTheCommandSaid) {
  EXPECT_THAT(error_of([&] { make("echo quota exceeded >&2; exit 3"); }).what(), HasSubstr("quota exceeded"));
  EXPECT_EQ(code_of([&] { make("sleep 60", Millis(100)); }), "DEADLINE_EXCEEDED");
  EXPECT_EQ(code_of([&] { make("echo not an address"); }), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of([&] { make("echo http://127.0.0.1:1"); }), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of([&] { make("true"); }), "INVALID_ARGUMENT");
}

TEST(AgentAddress, OnlyWhereAnAgentCanProveThatItIsOne) {
  const TempDir dir(fs::temp_directory_path(), "agents");
  const std::string here = dir.path().string();
  fs::create_directories(dir.path() / "in/below");
  fs::create_directories(dir.path() / "out");
  fs::create_directory_symlink(dir.path() / "out", dir.path() / "in/link");
  AgentAccessSettings settings;
  settings.socket_dirs = {here + "/in", here + "/not-there"};
  const auto is_let_through = [&](const std::string& text) {
    try {
      agent_address(text, settings);
      return true;
    } catch (const Error& e) {
      EXPECT_EQ(code_row(e.code()).wire, "INVALID_ARGUMENT") << text;
      return false;
    }
  };
  for (const char* good : {"/in/agent.sock", "/in/below/agent.sock", "/not-there/agent.sock"})
    EXPECT_TRUE(is_let_through("unix:" + here + good)) << good;
  for (const char* bad : {"/out/agent.sock", "/in", "/in/", "/in/link/agent.sock", "/in/../out/agent.sock",
                          "/in/./agent.sock", "/in-other/agent.sock"}) {
    EXPECT_FALSE(is_let_through("unix:" + here + bad)) << bad;
  }
  EXPECT_FALSE(is_let_through("unix:/etc/passwd"));
  EXPECT_FALSE(is_let_through("https://db1.example:8443"));
  EXPECT_FALSE(is_let_through("http://127.0.0.1:80"));
  settings.ca_file = "/ca.pem";
  settings.allow_plain_http = true;
  EXPECT_TRUE(is_let_through("https://db1.example:8443"));
  EXPECT_TRUE(is_let_through("http://127.0.0.1:80"));
  EXPECT_FALSE(is_let_through("http://db1.example:80"));
  settings.socket_users = {"nobody-of-this-name"};
  EXPECT_EQ(code_of([&] { agent_users(settings); }), "INVALID_ARGUMENT");
}

TEST(Metadata, TheMastersHostIsAHost) {
  const auto check = [](const std::string& host) {
    check_master(
        JsonWriter().begin_object().key("master").begin_object().member("host", host).end_object().end_object().text());
  };
  for (const char* good : {"db1", "db-1.example", "192.0.2.7", "2001:db8::7"}) EXPECT_NO_THROW(check(good)) << good;
  for (const char* bad : {"", "host=x;plugin-dir=/tmp", "a;b", "a=b", "a b", "a\nb", "x', MASTER_PORT=1", "x,127.0.0.1",
                          "[::1]", "a:1", "127.1"})
    EXPECT_EQ(code_of([&] { check(bad); }), "INVALID_ARGUMENT") << bad;
}

TEST(Judge, TheAgentsVerdictUnlessTheControllerKnowsBetter) {
  const auto verdict = [](const std::string& json, bool member = true, std::uint64_t expected = 1) {
    return to_text(judge(json, member, expected, Seconds(60)).verdict);
  };
  EXPECT_EQ(verdict(R"({"role":"replica","verdict":"healthy","lag_seconds":59.0,"source":{"server_id":1}})"),
            "healthy");
  EXPECT_EQ(verdict(R"({"role":"replica","verdict":"healthy","lag_seconds":61})"), "lagging");
  EXPECT_EQ(verdict(R"({"role":"replica","verdict":"broken","lag_seconds":61})"), "broken");
  EXPECT_EQ(verdict(R"({"role":"replica","verdict":"healthy","source":{"server_id":2}})"), "diverged");
  EXPECT_EQ(verdict(R"({"role":"replica","verdict":"healthy","source":{"server_id":2}})", true, 0), "healthy");
  EXPECT_EQ(verdict(R"({"role":"standalone","verdict":"standalone"})"), "broken");
  EXPECT_EQ(verdict(R"({"role":"source","verdict":"source"})"), "broken");
  EXPECT_EQ(verdict(R"({"role":"replica","verdict":"source","lag_seconds":1})"), "source");
  EXPECT_EQ(verdict(R"({"role":"standalone","verdict":"standalone"})", false), "standalone");
  EXPECT_EQ(verdict(R"({"new":"agent"})", false), "unknown");
  EXPECT_EQ(code_of([&] { verdict("[]"); }), "INTERNAL");
}

// Of a newer agent.
TEST(Judge, AWordThatIsUnknownIsToldAndJudgesNothing) {
  const LiveStatus status =
      judge(R"({"role":"witness","verdict":"tired","reasons":["so"],"lag_seconds":61})", true, 1, Seconds(60));
  EXPECT_EQ(status.verdict, Verdict::unknown);
  EXPECT_THAT(status.reasons, ElementsAre("so", HasSubstr("tired")));
  EXPECT_EQ(judge(R"({"role":"witness","verdict":"source"})", true, 1, Seconds(60)).verdict, Verdict::source);
}

TEST(LiveStatuses, WhatAnOlderLookBringsIsNotTaken) {
  Live live(10, Seconds(5));
  const auto status = [](Verdict verdict) {
    LiveStatus out;
    out.verdict = verdict;
    return out;
  };
  const auto first = live.begin_look("a");
  const auto second = live.begin_look("a");
  EXPECT_TRUE(live.set_status("a", status(Verdict::healthy), second));
  EXPECT_FALSE(live.set_status("a", status(Verdict::restoring), first));
  EXPECT_EQ(live.status("a").verdict, Verdict::healthy);
  const auto before = live.begin_look("a");
  live.forget_status("a");
  EXPECT_EQ(live.status("a").verdict, Verdict::unknown);
  EXPECT_FALSE(live.set_status("a", status(Verdict::restoring), before));
  EXPECT_EQ(live.status("a").verdict, Verdict::unknown);
  EXPECT_TRUE(live.set_status("a", status(Verdict::healthy), live.begin_look("a")));
}

TEST(Percent, GoesFromNothingToAll) {
  Task task;
  task.kind = "replicate";
  task.step = "snapshot";
  std::vector<Replica> replicas(2);
  JobView half;
  half.done_bytes = 5;
  half.total_bytes = 10;
  EXPECT_EQ(task_percent(task, replicas, {{}, {}}, std::nullopt), 0);
  EXPECT_EQ(task_percent(task, replicas, {{}, {}}, half), 20);
  task.step = "replicas";
  EXPECT_EQ(task_percent(task, replicas, {{}, {}}, std::nullopt), 40);
  replicas[0].state = ReplicaState::succeeded;
  EXPECT_EQ(task_percent(task, replicas, {{}, half}, std::nullopt), 80);
  JobView more = half;
  more.total_bytes.reset();
  more.past_total = true;
  EXPECT_EQ(task_percent(task, replicas, {{}, more}, std::nullopt), 93);
  task.step = "done";
  task.state = RunState::succeeded;
  EXPECT_EQ(task_percent(task, replicas, {{}, {}}, std::nullopt), 100);
  // One that ended short of it: what there is of it.
  for (const RunState state : {RunState::failed, RunState::cancelled}) {
    task.state = state;
    EXPECT_EQ(task_percent(task, replicas, {{}, half}, half), 50) << to_text(state);
    EXPECT_EQ(task_percent(task, {replicas[1]}, {half}, std::nullopt), 0) << to_text(state);
    EXPECT_EQ(task_percent(task, {}, {}, std::nullopt), 0) << to_text(state);
  }
}

// --- words

template <typename E>
class Words : public testing::Test {};
using Enums = testing::Types<InstanceState, RunState, ReplicaState, Verdict, Role>;
TYPED_TEST_SUITE(Words, Enums);

TYPED_TEST(Words, AreThereForEachValueAndLeadBackToIt) {
  std::set<std::string> texts;
  for (const auto& word : words_of<TypeParam>()) {
    EXPECT_EQ(to_text(word.value), word.text);
    EXPECT_EQ(from_text<TypeParam>(word.text), word.value);
    EXPECT_EQ(from_stored<TypeParam>(std::string(word.text)), word.value);
    texts.insert(std::string(word.text));
  }
  EXPECT_EQ(texts.size(), words_of<TypeParam>().size());
  EXPECT_FALSE(from_text<TypeParam>("frobnicated"));
  EXPECT_EQ(code_of([] { from_stored<TypeParam>("frobnicated"); }), "INTERNAL");
}

}  // namespace
}  // namespace guestagent::controller

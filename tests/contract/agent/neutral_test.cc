// The agent with each engine, and with one that is no database: jobs, RPC and a store of files, and what a crash at
// each step of a job leaves. What fails here for one of them, the agent knows of the others only.
#include <gtest/gtest.h>

#include <csignal>
#include <set>
#include <string>

#include "agent/dispatcher.h"
#include "base/log.h"
#include "contract/agent/worlds.h"
#include "storage/local/settings.h"
#include "storage/stores.h"
#include "tests/support/errors.h"
#include "tests/support/zygote.h"

namespace guestagent {
namespace {

// One host's agent, as a process of its own would have it.
class Agent {
 public:
  explicit Agent(const test::Host& host) : settings_(settings_of(host)), parts_(host.parts(settings_)) {}

  JsonDocument call(const std::string& method, const std::string& params = "{}") {
    return parse_json(dispatcher_.call(method, params), "result");
  }
  std::string role() { return call("get_replication_status")["role"].GetString(); }
  void recover() { jobs_.recover(); }
  std::size_t journals() const {
    std::size_t out = 0;
    for (const fs::directory_entry& entry : fs::directory_iterator(settings_.agent.state_dir / "jobs"))
      out += entry.path().extension() == ".journal" ? 1U : 0U;
    return out;
  }
  std::size_t objects() {
    std::size_t out = 0;
    store_->list("", [&](const ObjectInfo&) { ++out; }, {});
    return out;
  }

 private:
  static Settings settings_of(const test::Host& host) {
    Settings out = host.settings();
    out.agent.state_dir = host.base / (host.name + ".state");
    out.snapshot.spill.max_bytes = 0;
    out.storage.own.of<LocalStoreSettings>().path = host.base / "store";
    return out;
  }
  const Settings settings_;
  const DatastoreParts parts_;
  const std::unique_ptr<ObjectStore> store_{make_store(settings_.storage, system_clock())};
  Throttle throttle_;
  Operations operations_{settings_,     *store_,   *parts_.datastore, *parts_.upkeep,
                         *parts_.roles, throttle_, system_clock()};
  Jobs jobs_{settings_.agent,
             [this](const std::string& method, JobContext& job) { return operations_.recover(method, job); },
             system_clock()};
  Dispatcher dispatcher_{operations_, jobs_, true};
};

void call_in_another_process(const std::vector<std::string>& words) {
  log_setup(LogLevel::error, LogFormat::logfmt);
  Agent(test::Host::of(words)).call(words.at(4), words.at(5));
}

std::unique_ptr<test::Zygote> neutral_zygote;

class NeutralBeforeAnyThread : public testing::Environment {
  void SetUp() override { neutral_zygote = std::make_unique<test::Zygote>(call_in_another_process); }
  void TearDown() override { neutral_zygote.reset(); }
};
const auto* const kNeutralBefore = testing::AddGlobalTestEnvironment(new NeutralBeforeAnyThread);

std::unique_ptr<test::World> make_world(const std::string& engine, const fs::path& base) {
  if (engine == "Mysql") return std::make_unique<test::MysqlWorld>(base);
  return std::make_unique<test::TreeWorld>(base);
}

class Neutral : public testing::TestWithParam<const char*> {
 protected:
  Neutral() {
    log_setup(LogLevel::error, LogFormat::logfmt);
    fs::create_directories(dir_.path() / "store");
    world = make_world(GetParam(), dir_.path());
    world->change("source", "a", "1");
    world->change("source", "b", "2");
    world->change("target", "old", "0");
  }
  test::Host source() const { return world->host("source"); }
  test::Host target() const { return world->host("target"); }

  // The params of an attach of it: the target's data may go.
  std::string attach_params() {
    const std::string metadata = to_json(Agent(source()).call("get_replication_snapshot", R"({"snapshot_id":"s"})"));
    return R"({"slave_config":{"overwrite":true},"snapshot":)" + metadata + "}";
  }

  // What it has received and applied, once it has all that is expected.
  void expect_content(const std::string& host, const std::string& expected) {
    std::string now;
    for (unsigned look = 0; look < 1200 && now != expected; ++look) {
      if (look > 0) system_clock().sleep(Millis(50), {});
      Agent(world->host(host)).role();
      now = world->content(host);
    }
    EXPECT_EQ(now, expected);
  }

  // The call in a process of its own, which dies right after it has recorded that step; whether it did.
  bool dies(const test::Host& host, const std::string& step, const std::string& method, const std::string& params) {
    std::vector<std::string> words = host.words();
    words.insert(words.end(), {method, params});
    return neutral_zygote->run("journal:" + step + "=kill", words) == SIGKILL;
  }

 private:
  const TempDir dir_{fs::temp_directory_path(), "neutral-"};

 protected:
  std::unique_ptr<test::World> world;
};

TEST_P(Neutral, SnapshotAttachFollowAndDetach) {
  const std::string attach = attach_params();
  Agent source(this->source()), target(this->target());
  EXPECT_EQ(source.role(), "source");
  world->change("source", "c", "3");

  std::string careful = attach;
  careful.replace(careful.find("true"), 4, "false");
  const Error has_data = test::error_of([&] { target.call("attach_replication_slave", careful); });
  EXPECT_EQ(has_data.code(), Code::failed_precondition);
  EXPECT_EQ(world->content("target"), "old=0;");
  EXPECT_TRUE(target.call("attach_replication_slave", attach.substr(0, attach.size() - 1) + R"(,"dry_run":true})")["ok"]
                  .GetBool());
  const JsonDocument attached = target.call("attach_replication_slave", attach);
  EXPECT_STREQ(attached["state"].GetString(), "replica");
  EXPECT_STREQ(attached["status"]["verdict"].GetString(), "healthy");
  expect_content("target", "a=1;b=2;c=3;");
  world->change("source", "a", "4");
  EXPECT_EQ(target.role(), "replica");
  expect_content("target", "a=4;b=2;c=3;");

  world->change("source", "d", "5");
  expect_content("target", "a=4;b=2;c=3;d=5;");
  EXPECT_TRUE(target.call("detach_replication_slave", R"({"dry_run":true})")["ok"].GetBool());
  const JsonDocument detached = target.call("detach_replication_slave");
  EXPECT_STREQ(detached["state"].GetString(), "standalone");
  EXPECT_TRUE(detached["last_applied"].IsObject());
  EXPECT_EQ(world->content("target"), "a=4;b=2;c=3;d=5;") << "nothing that the source had is lost";
  EXPECT_EQ(target.role(), "standalone");
  const Error none = test::error_of([&] { target.call("detach_replication_slave"); });
  EXPECT_EQ(none.code(), Code::failed_precondition);
  const JsonDocument params = parse_json(attach, "params");
  const std::string user = params["snapshot"]["replication_user"]["name"].GetString();
  source.call("cleanup_replication_source", R"({"replication_user":")" + user + "\"}");
  EXPECT_EQ(world->accounts("source"), 0U);
  EXPECT_TRUE(world->is_tidy("target"));
}

TEST_P(Neutral, CrashAtEachStepOfASnapshotLeavesNothing) {
  std::multiset<std::string> expected{"succeeded"};
  for (const std::string& step : world->snapshot_steps()) {
    SCOPED_TRACE(step);
    ASSERT_TRUE(dies(source(), step, "get_replication_snapshot", R"({"snapshot_id":"s"})"));
    Agent agent(source());
    agent.recover();
    EXPECT_EQ(world->accounts("source"), 0U);
    EXPECT_EQ(agent.objects(), 0U);
    EXPECT_EQ(agent.journals(), 0U);
    expected.insert("failed");
  }
  ASSERT_TRUE(dies(source(), "result", "get_replication_snapshot", R"({"snapshot_id":"s"})"));
  Agent agent(source());
  agent.recover();
  EXPECT_EQ(world->accounts("source"), 1U) << "a job that has succeeded stays so";
  std::multiset<std::string> states;
  const JsonDocument jobs = agent.call("list_jobs");
  for (const auto& job : jobs["jobs"].GetArray()) states.insert(job["state"].GetString());
  EXPECT_EQ(states, expected);
  EXPECT_EQ(agent.journals(), 0U);
}

TEST_P(Neutral, CrashAtEachStepOfAnAttachLeavesOldOrNewDataWhole) {
  const std::string attach = attach_params();
  for (const std::string& step : world->attach_steps()) {
    SCOPED_TRACE(step);
    ASSERT_TRUE(dies(target(), step, "attach_replication_slave", attach));
    Agent agent(target());
    agent.recover();
    const bool done = step == "result";
    EXPECT_EQ(world->content("target"), done ? "a=1;b=2;" : "old=0;");
    EXPECT_EQ(agent.role(), done ? "replica" : "standalone");
    EXPECT_TRUE(world->is_tidy("target"));
    EXPECT_EQ(agent.journals(), 0U);
  }
}

TEST_P(Neutral, CrashAtEachStepOfADetachLeavesAReplicaOrNone) {
  const std::string attach = attach_params();
  for (const auto& [step, finished] : world->detach_steps()) {
    SCOPED_TRACE(step);
    if (Agent agent(target()); agent.role() != "replica") agent.call("attach_replication_slave", attach);
    ASSERT_TRUE(dies(target(), step, "detach_replication_slave", "{}"));
    Agent agent(target());
    agent.recover();
    EXPECT_EQ(agent.role(), finished ? "standalone" : "replica");
    EXPECT_EQ(world->content("target"), "a=1;b=2;");
    EXPECT_EQ(agent.journals(), 0U);
  }
}

INSTANTIATE_TEST_SUITE_P(With, Neutral, testing::Values("Tree", "Mysql"),
                         [](const auto& each) { return std::string(each.param); });

}  // namespace
}  // namespace guestagent

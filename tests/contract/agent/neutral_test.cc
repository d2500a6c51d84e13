// The agent with a datastore that is no database: jobs, RPC and a store of files, and what a crash at each step of a
// job leaves. What fails here, the agent knows of one engine only.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <set>
#include <string>

#include "agent/dispatcher.h"
#include "base/log.h"
#include "contract/agent/tree_datastore.h"
#include "storage/local/settings.h"
#include "storage/stores.h"
#include "tests/support/errors.h"

namespace guestagent {
namespace {

// One host's agent, as a process of its own would have it.
class Agent {
 public:
  Agent(const fs::path& base, const std::string& name) : settings_(settings_of(base, name)), tree(base, name) {}

  JsonDocument call(const std::string& method, const std::string& params = "{}") {
    return parse_json(dispatcher_.call(method, params), "result");
  }
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
  static Settings settings_of(const fs::path& base, const std::string& name) {
    Settings out;
    out.agent.state_dir = base / (name + ".state");
    out.snapshot.spill.max_bytes = 0;
    out.storage.own.of<LocalStoreSettings>().path = base / "store";
    return out;
  }
  const Settings settings_;

 public:
  test::TreeDatastore tree;

 private:
  const std::unique_ptr<ObjectStore> store_{make_store(settings_.storage, system_clock())};
  Throttle throttle_;
  Operations operations_{settings_, *store_, tree, tree, throttle_, system_clock()};
  Jobs jobs_{settings_.agent,
             [this](const std::string& method, JobContext& job) { return operations_.recover(method, job); },
             system_clock()};
  Dispatcher dispatcher_{operations_, jobs_, true};
};

class Neutral : public testing::Test {
 protected:
  Neutral() {
    log_setup(LogLevel::error, LogFormat::logfmt);
    fs::create_directories(base() / "store");
    Agent source(base(), "source");
    source.tree.change("a", "1");
    source.tree.change("b", "2");
    Agent target(base(), "target");
    target.tree.change("old", "0");
  }
  const fs::path& base() const { return dir_.path(); }

  std::string snapshot() {
    return to_json(Agent(base(), "source").call("get_replication_snapshot", R"({"snapshot_id":"s"})"));
  }
  static std::string of(const std::string& metadata) { return R"({"snapshot":)" + metadata + "}"; }

  // The call in a process of its own, which dies right after it has recorded that step; whether it did.
  bool dies(const std::string& host, const std::string& step, const std::string& method, const std::string& params) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::setenv("GUESTAGENT_FAILPOINT", ("journal:" + step + "=kill").c_str(), 1);
      try {
        Agent(base(), host).call(method, params);
      } catch (const std::exception& e) {
        static_cast<void>(std::fprintf(stderr, "%s\n", e.what()));
      }
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  }

 private:
  const TempDir dir_{fs::temp_directory_path(), "neutral-"};
};

TEST_F(Neutral, SnapshotAttachFollowAndDetach) {
  const std::string metadata = snapshot();
  Agent source(base(), "source"), target(base(), "target");
  EXPECT_STREQ(source.call("get_replication_status")["role"].GetString(), "source");
  source.tree.change("c", "3");

  const JsonDocument attached = target.call("attach_replication_slave", of(metadata));
  EXPECT_STREQ(attached["state"].GetString(), "replica");
  EXPECT_STREQ(attached["status"]["verdict"].GetString(), "healthy");
  EXPECT_EQ(target.tree.content(), "a=1;b=2;c=3;");
  source.tree.change("a", "4");
  EXPECT_STREQ(target.call("get_replication_status")["role"].GetString(), "replica");
  EXPECT_EQ(target.tree.content(), "a=4;b=2;c=3;");
  EXPECT_EQ(test::error_of([&] { target.call("attach_replication_slave", of(metadata)); }).code(),
            Code::failed_precondition);

  source.tree.change("d", "5");
  EXPECT_STREQ(target.call("get_replication_status")["feed_reader"].GetString(), "running");
  EXPECT_TRUE(target.call("detach_replication_slave", R"({"dry_run":true})")["ok"].GetBool());
  const JsonDocument detached = target.call("detach_replication_slave");
  EXPECT_STREQ(detached["state"].GetString(), "standalone");
  EXPECT_EQ(target.tree.content(), "a=4;b=2;c=3;d=5;") << "nothing that the source had is lost";
  EXPECT_STREQ(target.call("get_replication_status")["role"].GetString(), "standalone");
  source.call("cleanup_replication_source", R"({"replication_user":"repl_s"})");
  EXPECT_EQ(source.tree.accounts(), 0U);
  EXPECT_TRUE(target.tree.is_tidy());
}

TEST_F(Neutral, CrashAtEachStepOfASnapshotLeavesNothing) {
  for (const std::string step : {"job", "objects", "tree.account"}) {
    SCOPED_TRACE(step);
    ASSERT_TRUE(dies("source", step, "get_replication_snapshot", R"({"snapshot_id":"s"})"));
    Agent source(base(), "source");
    source.recover();
    EXPECT_EQ(source.tree.accounts(), 0U);
    EXPECT_EQ(source.objects(), 0U);
    EXPECT_EQ(source.journals(), 0U);
  }
  ASSERT_TRUE(dies("source", "result", "get_replication_snapshot", R"({"snapshot_id":"s"})"));
  Agent source(base(), "source");
  source.recover();
  EXPECT_EQ(source.tree.accounts(), 1U) << "a job that has succeeded stays so";
  std::multiset<std::string> states;
  const JsonDocument jobs = source.call("list_jobs");
  for (const auto& job : jobs["jobs"].GetArray()) states.insert(job["state"].GetString());
  EXPECT_EQ(states, (std::multiset<std::string>{"failed", "failed", "failed", "succeeded"}));
  EXPECT_EQ(source.journals(), 0U);
}

TEST_F(Neutral, CrashAtEachStepOfAnAttachLeavesOldOrNewDataWhole) {
  const std::string metadata = snapshot();
  for (const std::string step : {"job", "tree.staging", "tree.exchange", "tree.follow", "result"}) {
    SCOPED_TRACE(step);
    ASSERT_TRUE(dies("target", step, "attach_replication_slave", of(metadata)));
    Agent target(base(), "target");
    target.recover();
    const bool done = step == "result";
    EXPECT_EQ(target.tree.content(), done ? "a=1;b=2;" : "old=0;");
    EXPECT_EQ(target.tree.is_replica(), done);
    EXPECT_TRUE(target.tree.is_tidy());
    EXPECT_EQ(target.journals(), 0U);
  }
}

TEST_F(Neutral, CrashAtEachStepOfADetachLeavesAReplicaOrNone) {
  Agent(base(), "target").call("attach_replication_slave", of(snapshot()));
  for (const std::string step : {"tree.detach", "result"}) {
    SCOPED_TRACE(step);
    ASSERT_TRUE(dies("target", step, "detach_replication_slave", "{}"));
    Agent target(base(), "target");
    target.recover();
    EXPECT_EQ(target.tree.is_replica(), step != "result");
    EXPECT_EQ(target.tree.content(), "a=1;b=2;");
    EXPECT_EQ(target.journals(), 0U);
  }
}

}  // namespace
}  // namespace guestagent

// Another source for a set, on hosts that are told what to fail at: either the old state is there again, or exactly one
// host takes writes and the topology says who follows it.
#include "controller/promotion.h"

#include <gmock/gmock.h>

#include "controller/provision.h"
#include "scripted_agents.h"

namespace guestagent::controller {
namespace {

using testing::HasSubstr;

// Servers as far as roles are concerned: what each refuses, follows and has.
class RoleHosts {
 public:
  struct Server {
    bool read_only = true, up = true, dead = false;
    bool cut_off = false;  // from the controller only
    std::string follows;
    std::uint64_t received = 10, executed = 1;
  };
  std::map<std::string, Server> servers;
  std::map<std::string, Code> fails;       // "HOST METHOD": its job ends so, every time
  std::set<std::string> refuses;           // agents that answer the controller with an error
  std::set<std::string> dropped_writable;  // hosts that dropped an account, and so wrote, while they took writes
  std::set<std::string> silent_after;      // "HOST METHOD": the job is done, and then the agent is silent
  ScriptedAgents agents{[this](const ScriptedAgents::Call& call, int) { return answer(call); }};

  template <typename F>
  auto with(F f) {
    const std::lock_guard lock(mutex_);
    return f();
  }
  std::string writable() {
    const std::lock_guard lock(mutex_);
    std::string out;
    for (const auto& [name, server] : servers) {
      if (!server.read_only && !server.dead) out += name;
    }
    return out;
  }

 private:
  struct Ended {
    std::string result;
    std::optional<Code> code;
  };

  std::string answer(const ScriptedAgents::Call& call) {
    const std::lock_guard lock(mutex_);
    const std::string host = call.address.substr(6);
    Server& server = servers[host];
    if (!server.up) throw silence();
    if (call.method == "get_replication_status") {
      if (refuses.count(host) != 0) throw Error(Code::permission_denied, "not this controller");
      if (server.dead) return R"({"verdict":"unreachable"})";
      const auto source = servers.find(server.follows);
      const bool hears =
          source == servers.end() || ((source->second.up || source->second.cut_off) && !source->second.dead);
      return hears ? R"({"verdict":"healthy"})" : R"({"verdict":"broken"})";
    }
    if (call.method == "get_replication_position") {
      return R"({"executed":{"at":)" + std::to_string(server.executed) +
             R"(},"received":null,"received_transactions":)" + std::to_string(server.received) + "}";
    }
    const JsonDocument params = parse_json(call.params, "params");
    if (params.HasMember("dry_run")) {
      return fails.count(host + " dry_run") != 0
                 ? R"({"ok":false,"checks":[{"name":"x","result":"failed","message":"it logs nothing"}]})"
                 : R"({"ok":true,"checks":[]})";
    }
    const std::string id = params["job_id"].GetString();
    if (call.method == "get_job") {
      const auto known = jobs_.find(host + id);
      if (known == jobs_.end()) throw Error(Code::not_found, "no job");
      return record(id, known->second);
    }
    if (call.method == "cancel_job") throw Error(Code::failed_precondition, "it has ended");
    if (call.method == "detach_replication_slave" && fails.count(host + " busy") != 0)
      throw Error(Code::busy, "another job runs");
    if (jobs_.count(host + id) == 0) jobs_[host + id] = run(host, server, call.method, params);
    if (silent_after.erase(host + " " + call.method) != 0) {
      server.up = false;
      throw silence();
    }
    return "{}";
  }

  Ended run(const std::string& host, Server& server, const std::string& method, const JsonDocument& params) {
    if (const auto failure = fails.find(host + " " + method); failure != fails.end()) return {"{}", failure->second};
    if (method == "set_read_only") server.read_only = params["read_only"].GetBool();
    if (method == "cleanup_replication_source" && !server.read_only) dropped_writable.insert(host);
    if (method == "detach_replication_slave") {
      server.follows.clear();
      server.read_only = false;
    }
    if (method == "open_replication_source")
      return {R"({"master":{"host":")" + host + R"("},"replication_user":{"name":"repl_)" + host + R"("}})",
              std::nullopt};
    if (method == "get_replication_snapshot") {
      return {
          R"({"master":{"host":"m"},"dataset":{"snapshot_href":"h","dataset_size":1},"replication_user":{"name":"r2"}})",
          std::nullopt};
    }
    if (method == "attach_replication_slave") {
      server.follows = params["snapshot"]["master"]["host"].GetString();
      server.read_only = true;
    }
    return {"{}", std::nullopt};
  }

  static std::string record(const std::string& id, const Ended& job) {
    JsonWriter out;
    out.begin_object().member("job_id", id).member("phase", "x");
    if (!job.code) return out.member("state", "succeeded").key("result").raw(job.result).end_object().text();
    out.member("state", "failed").key("error").begin_object().member("message", "told to").key("data").begin_object();
    return out.member("code", code_row(*job.code).wire).end_object().end_object().end_object().text();
  }

  std::mutex mutex_;
  std::map<std::string, Ended> jobs_;
};

class PromotionTest : public testing::Test {
 protected:
  PromotionTest() {
    settings.agents.job_poll = Millis(2);
    settings.agents.lost_after = Millis(100);
    for (const char* id : {"m", "a", "b"}) {
      NewInstance in;
      in.id = in.name = id;
      in.address = "unix:/" + std::string(id);
      in.spare = std::string(id) != "m";
      state.add_instance(in);
      hosts.servers[id];
    }
    NewReplicate in;
    in.source_id = "m";
    in.count = 2;
    const Task made = state.start_replicate(in, [](auto&, auto&, int) { return std::vector<std::string>{"a", "b"}; });
    state.snapshot_taken(made.id, Secret("{}"), "href", "repl_m");
    for (const int n : {1, 2}) state.replica_serving(made.id, n);
    state.replicas_ended(made.id);
    for (const Cleanup& cleanup : state.cleanups_of(made.id)) state.cleanup_done(cleanup.id);
    state.finish(made.id, "");
    hosts.servers["m"].read_only = false;
    for (const char* id : {"a", "b"}) hosts.servers[id].follows = "m";
    start();
  }
  ~PromotionTest() override { tasks->shut_down(); }
  void start() {
    tasks = std::make_unique<TaskManager>(state, hosts.agents, *pool, live, settings, system_clock());
    tasks->resume();
  }
  void wait(const char* what, const std::function<bool()>& condition) {
    for (int n = 0; n < 4000 && !condition(); ++n) std::this_thread::sleep_for(Millis(5));
    ASSERT_TRUE(condition()) << what;
  }
  Task end_of(const Task& task) {
    wait("the task's end", [&] { return state.task(task.id).ended(); });
    return state.task(task.id);
  }
  Task promote(const std::string& id) { return end_of(tasks->promote(id, R"({"promote_to_replica_source":{}})")); }
  Task eject(const std::string& params = "{}") {
    return end_of(tasks->eject("m", R"({"eject_replica_source":)" + params + "}"));
  }
  // "source: replica replica"
  std::string topology() {
    std::string out;
    for (const TopologyEntry& entry : state.topology("a")) {
      if (!entry.source_id) out = entry.id + ":" + out;
      if (entry.source_id) out += " " + entry.id;
    }
    return out;
  }
  void expect_as_before(const Task& task) {
    EXPECT_EQ(task.state, RunState::failed);
    EXPECT_EQ(topology(), "m: a b");
    wait("the source takes writes", [&] { return hosts.writable() == "m"; });
    EXPECT_EQ(hosts.servers["a"].follows, "m");
  }

  TempDir dir{fs::temp_directory_path(), "promotion"};
  State state{dir.path() / "state.db", system_clock()};
  Live live{10, Seconds(5)};
  ControllerSettings settings;
  std::unique_ptr<Provisioner> pool = make_provisioner(settings.provisioner, settings.agents);
  RoleHosts hosts;
  std::unique_ptr<TaskManager> tasks;
};

TEST_F(PromotionTest, AReplicaTakesOverAndAllOthersFollowIt) {
  const Task task = promote("b");
  EXPECT_EQ(task.state, RunState::succeeded) << task.error.message;
  EXPECT_EQ(hosts.writable(), "b");
  EXPECT_EQ(hosts.servers["a"].follows, "b");
  EXPECT_EQ(hosts.servers["m"].follows, "b");
  EXPECT_EQ(topology(), "b: a m");
  EXPECT_EQ(hosts.agents.calls("cleanup_replication_source").size(), 1U) << "nobody uses the old source's account";
  // And back.
  EXPECT_EQ(promote("m").state, RunState::succeeded);
  EXPECT_EQ(topology(), "m: a b");
}

TEST_F(PromotionTest, WhateverFailsBeforeItTakesWritesLeavesTheOldState) {
  const std::pair<const char*, Code> failures[] = {{"b dry_run", Code::failed_precondition},
                                                   {"m set_read_only", Code::deadline_exceeded},
                                                   {"b wait_for_position", Code::deadline_exceeded},
                                                   {"b wait_for_position", Code::failed_precondition},
                                                   {"b detach_replication_slave", Code::failed_precondition}};
  for (const auto& [what, code] : failures) {
    hosts.fails = {{what, code}};
    const Task task = promote("b");
    SCOPED_TRACE(what);
    expect_as_before(task);
    EXPECT_EQ(task.error.code, code_row(code).wire);
  }
  hosts.fails.clear();
  EXPECT_EQ(promote("b").state, RunState::succeeded) << "nothing of the failures is in its way";
}

TEST_F(PromotionTest, ASourceThatFallsSilentTakesWritesAgainWhenItAnswers) {
  hosts.silent_after = {"m set_read_only"};
  const Task task = promote("b");
  EXPECT_EQ(task.state, RunState::failed);
  EXPECT_EQ(hosts.writable(), "") << "it did refuse writes, and nobody knows";
  hosts.with([&] { return hosts.servers["m"].up = true; });
  expect_as_before(task);
}

TEST_F(PromotionTest, WhetherTheNewOneTakesWritesIsFoundOut) {
  hosts.silent_after = {"b detach_replication_slave"};
  const Task begun = tasks->promote("b", R"({"promote_to_replica_source":{}})");
  wait("it is silent", [&] { return hosts.with([&] { return !hosts.servers["b"].up; }); });
  std::this_thread::sleep_for(Millis(300));
  EXPECT_FALSE(state.task(begun.id).ended()) << "it may take writes: the old source must not";
  EXPECT_TRUE(hosts.servers["m"].read_only);
  hosts.with([&] { return hosts.servers["b"].up = true; });
  EXPECT_EQ(end_of(begun).state, RunState::succeeded);
  EXPECT_EQ(hosts.writable(), "b");
}

// The new one takes writes, the controller dies, and what was asked of the source before would be answered otherwise
// now.
TEST_F(PromotionTest, AControllerThatDiesAfterTheDetachDoesNotLetBothTakeWrites) {
  hosts.silent_after = {"b detach_replication_slave"};
  const Task begun = tasks->promote("b", R"({"promote_to_replica_source":{}})");
  wait("it is silent", [&] { return hosts.with([&] { return !hosts.servers["b"].up; }); });
  tasks->shut_down();
  hosts.with([&] {
    hosts.fails = {{"b wait_for_position", Code::failed_precondition}, {"b dry_run", Code::failed_precondition}};
    hosts.servers["m"].executed = 2;
    hosts.servers["b"].up = true;
    return 0;
  });
  start();
  EXPECT_EQ(end_of(begun).state, RunState::succeeded);
  EXPECT_EQ(hosts.writable(), "b");
}

TEST_F(PromotionTest, WhereTheNewOneCannotBeHeldTheOldOneStandsStill) {
  hosts.fails = {{"b detach_replication_slave", Code::internal}, {"b set_read_only", Code::unavailable}};
  const Task task = promote("b");
  EXPECT_EQ(task.state, RunState::failed);
  EXPECT_EQ(topology(), "m: a b");
  std::this_thread::sleep_for(Millis(200));
  EXPECT_EQ(hosts.writable(), "") << "the detach may yet be finished by its agent";
  EXPECT_THAT(task.error.hint, HasSubstr("refuses writes"));
}

TEST_F(PromotionTest, AFollowerThatFailsIsToldAndTheRestStands) {
  hosts.fails = {{"m attach_replication_slave", Code::failed_precondition}};
  const Task task = promote("b");
  EXPECT_EQ(task.state, RunState::failed);
  EXPECT_THAT(task.error.message, HasSubstr("m: told to"));
  EXPECT_EQ(hosts.writable(), "b");
  EXPECT_EQ(topology(), "b: a");
  EXPECT_TRUE(hosts.servers["m"].read_only);
}

TEST_F(PromotionTest, OneThatCannotBeOpenedStandsOnItsOwn) {
  hosts.fails = {{"b open_replication_source", Code::internal}};
  const Task task = promote("b");
  EXPECT_EQ(task.state, RunState::failed);
  EXPECT_EQ(hosts.writable(), "b") << "there is no way back";
  EXPECT_EQ(topology(), "m: a");
}

TEST_F(PromotionTest, AControllerThatDiesGoesOn) {
  for (int n = 0; n < 10; ++n) {
    // Stopped at any place: the next one begins the step again and finds the jobs. tests/controller/kill.py has each
    // place by its name.
    const std::string target = topology().starts_with("m") ? "b" : "m";
    const Task begun = tasks->promote(target, R"({"promote_to_replica_source":{}})");
    std::this_thread::sleep_for(Millis(n * 5));
    tasks->shut_down();
    start();
    EXPECT_EQ(end_of(begun).state, RunState::succeeded) << n;
    EXPECT_EQ(hosts.writable(), target);
  }
}

TEST_F(PromotionTest, WhatCannotBeIsRefusedAndOneTaskAtATime) {
  EXPECT_THROW(tasks->promote("m", "{}"), Error) << "no replica";
  EXPECT_THROW(tasks->eject("a", "{}"), Error) << "no source";
  hosts.silent_after = {"b detach_replication_slave"};
  const Task begun = tasks->promote("b", R"({"promote_to_replica_source":{}})");
  EXPECT_THROW(tasks->promote("a", "{}"), Error);
  EXPECT_THROW(tasks->eject("m", "{}"), Error);
  EXPECT_THROW(tasks->detach_replication("a"), Error);
  EXPECT_THROW(tasks->create_replicated_instances("m", 1, "", {}, 0, "", "[]"), Error);
  wait("it is silent", [&] { return hosts.with([&] { return !hosts.servers["b"].up; }); });
  hosts.with([&] { return hosts.servers["b"].up = true; });
  end_of(begun);
}

TEST_F(PromotionTest, TheOneThatHasReceivedTheMostTakesOverFromADeadSource) {
  EXPECT_THAT(eject().error.message, HasSubstr("it answers"));
  hosts.with([&] {
    hosts.servers["m"].up = false;
    hosts.servers["b"].received = 11;
    return 0;
  });
  const Task task = eject();
  EXPECT_EQ(task.state, RunState::succeeded) << task.error.message;
  EXPECT_EQ(task.target_id, "b");
  EXPECT_EQ(topology(), "b: a");
  EXPECT_EQ(hosts.servers["a"].follows, "b");
  // It comes back as the source that it was.
  hosts.with([&] { return hosts.servers["m"].up = true; });
  wait("the fence", [&] { return hosts.writable() == "b"; });
  // Not before: what it writes then, it could not follow the new source with.
  wait("its account", [&] { return hosts.agents.calls("cleanup_replication_source").size() == 1; });
  EXPECT_TRUE(hosts.with([&] { return hosts.dropped_writable.empty(); }));
}

TEST_F(PromotionTest, AReplicaIsMadeAnewInItsPlace) {
  const auto rebuild = [&](const std::string& id) { return end_of(tasks->rebuild(id, R"({"rebuild":{}})")); };
  EXPECT_THROW(tasks->rebuild("m", "{}"), Error) << "a source";
  hosts.fails = {{"b attach_replication_slave", Code::data_loss}};
  EXPECT_EQ(rebuild("b").state, RunState::failed);
  EXPECT_EQ(topology(), "m: a b") << "it is the member that it was";
  EXPECT_EQ(state.instance("b").state, InstanceState::active);
  hosts.fails = {{"m get_replication_snapshot", Code::unavailable}};
  EXPECT_EQ(rebuild("b").state, RunState::failed);
  EXPECT_EQ(state.instance("b").state, InstanceState::active);
  hosts.fails.clear();
  const auto before = hosts.agents.calls("attach_replication_slave").size();
  const Task task = rebuild("b");
  EXPECT_EQ(task.state, RunState::succeeded) << task.error.message;
  EXPECT_EQ(topology(), "m: a b");
  const auto attaches = hosts.agents.calls("attach_replication_slave");
  ASSERT_GT(attaches.size(), before);
  EXPECT_THAT(attaches.back().params, HasSubstr("\"overwrite\":true"));
}

TEST_F(PromotionTest, ASourceThatIsOnlyOutOfTheControllersReachIsNotGone) {
  hosts.with([&] {
    hosts.servers["m"].up = false;
    hosts.servers["m"].cut_off = true;
    return 0;
  });
  EXPECT_THAT(eject().error.message, HasSubstr("a receives from it"));
  hosts.with([&] {
    hosts.servers["m"].up = true;
    hosts.refuses = {"m"};
    return 0;
  });
  EXPECT_THAT(eject().error.message, HasSubstr("its agent answers: not this controller"));
  EXPECT_EQ(topology(), "m: a b");
  EXPECT_EQ(hosts.writable(), "m");
}

TEST_F(PromotionTest, ATargetThatIsBusyDoesNotKeepTheWritersWaiting) {
  hosts.fails = {{"b busy", Code::busy}};
  const Task task = promote("b");
  expect_as_before(task);
  EXPECT_EQ(task.error.code, "BUSY");
}

TEST_F(PromotionTest, ASilentReplicaMayHaveWhatNobodyElseHas) {
  hosts.with([&] {
    hosts.servers["m"].dead = true;  // its agent answers, its server does not
    hosts.servers["b"].up = false;
    return 0;
  });
  EXPECT_THAT(eject().error.message, HasSubstr("not all replicas say what they have: b"));
  EXPECT_EQ(topology(), "m: a b");
  const Task forced = eject(R"({"force":true})");
  EXPECT_EQ(forced.state, RunState::failed) << "b does not follow";
  EXPECT_EQ(hosts.writable(), "a");
}

}  // namespace
}  // namespace guestagent::controller

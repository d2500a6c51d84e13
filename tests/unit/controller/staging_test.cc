// What the hosts of replicas do while the source still makes the snapshot.
#include "controller/staging.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "controller/good_hosts.h"
#include "controller/provision.h"
#include "scripted_agents.h"

namespace guestagent::controller {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr const char* kMetadata =
    R"({"master":{"host":"m"},"dataset":{"snapshot_href":"the-href","dataset_size":1},"replication_user":{"name":"r1"}})";

// Hosts whose jobs run until the test ends them; those of `at_once` succeed at once.
class JobHosts {
 public:
  std::set<std::string> at_once = {"attach_replication_slave", "delete_replication_snapshot",
                                   "cleanup_replication_source", "discard_staged_snapshot"};
  ScriptedAgents agents{[this](const ScriptedAgents::Call& call, int) { return answer(call); }};

  void be_silent(const std::string& host, bool silent) {
    const std::lock_guard lock(mutex_);
    if (silent) {
      silent_.insert(host);
    } else {
      silent_.erase(host);
    }
  }
  void refuse(const std::string& method, Code code) {
    const std::lock_guard lock(mutex_);
    refused_[method] = code;
  }
  void answer_snapshots(const std::string& metadata) {
    const std::lock_guard lock(mutex_);
    metadata_ = metadata;
  }
  // Jobs are told to end, and do not.
  void be_stubborn() {
    const std::lock_guard lock(mutex_);
    stubborn_ = true;
  }
  void end(const std::string& host, const std::string& step, const std::string& state, const std::string& code = {}) {
    const std::lock_guard lock(mutex_);
    Job& job = job_of(host, step);
    job.state = state;
    job.code = code;
  }
  std::string state(const std::string& host, const std::string& step) {
    const std::lock_guard lock(mutex_);
    return job_of(host, step).state;
  }
  // "HOST METHOD" of each job in the order in which they were begun, but for what is done to clean up.
  std::vector<std::string> begun() {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> out;
    for (const std::string& one : begun_) {
      if (one.find("delete") == std::string::npos && one.find("cleanup") == std::string::npos) out.push_back(one);
    }
    return out;
  }
  bool has_begun(const std::string& what) {
    const auto all = begun();
    return std::find(all.begin(), all.end(), what) != all.end();
  }
  std::string params(const std::string& method) { return agents.calls(method).at(0).params; }

 private:
  struct Job {
    std::string method, state, code;
  };

  // Of the newest task.
  Job& job_of(const std::string& host, const std::string& step) {
    Job* found = &none_;
    for (auto& [id, job] : jobs_[host]) {
      if (id.find("-" + step) != std::string::npos) found = &job;
    }
    return *found;
  }

  std::string answer(const ScriptedAgents::Call& call) {
    const std::lock_guard lock(mutex_);
    const std::string host = call.address.substr(6);
    if (silent_.count(host) != 0) throw silence();
    if (call.method == "get_info") return R"({"host":{"has_user_data":false}})";
    const JsonDocument params = parse_json(call.params, "params");
    const std::string id = params["job_id"].GetString();
    auto& jobs = jobs_[host];
    const auto known = jobs.find(id);
    if (call.method == "get_job" || call.method == "cancel_job") {
      if (known == jobs.end()) throw Error(Code::not_found, "no job " + id);
      if (call.method == "get_job") return record(id, known->second);
      if (known->second.state != "running") throw Error(Code::failed_precondition, "it has ended");
      if (!stubborn_) known->second.state = "cancelled";
      return "{}";
    }
    if (const auto refused = refused_.find(call.method); refused != refused_.end())
      throw Error(refused->second, "there is no such method");
    if (known != jobs.end()) return "{}";
    for (const auto& [other, job] : jobs) {
      if (job.state == "running") throw Error(Code::busy, "job " + other + " is running");
    }
    jobs[id] = {call.method, at_once.count(call.method) != 0 ? "succeeded" : "running", ""};
    begun_.push_back(host + " " + call.method.substr(0, call.method.find('_')));
    return "{}";
  }

  std::string record(const std::string& id, const Job& job) {
    JsonWriter out;
    out.begin_object().member("job_id", id).member("state", job.state);
    out.member("phase", job.method.starts_with("stage") ? "follow" : "copy");
    if (job.method.starts_with("get_")) out.member("snapshot_href", "the-href");
    if (job.state == "succeeded") out.key("result").raw(job.method.starts_with("get_") ? metadata_ : "{}");
    if (!job.code.empty()) {
      out.key("error").begin_object().member("message", "because of " + job.code).key("data").begin_object();
      out.member("code", job.code).end_object().end_object();
    }
    return out.end_object().text();
  }

  std::mutex mutex_;
  std::set<std::string> silent_;         // hosts
  std::map<std::string, Code> refused_;  // methods
  bool stubborn_ = false;
  std::string metadata_ = kMetadata;
  Job none_{"", "none", ""};
  std::map<std::string, std::map<std::string, Job>> jobs_;
  std::vector<std::string> begun_;
};

class StagingTest : public testing::Test {
 protected:
  StagingTest() {
    settings.agents.job_poll = Millis(5);
    settings.agents.lost_after = Millis(200);
    for (const char* id : {"m", "a", "b"}) add(id, std::string(id) != "m");
    start();
  }
  ~StagingTest() override { tasks->shut_down(); }
  void add(const std::string& id, bool spare) {
    NewInstance in;
    in.id = in.name = id;
    in.address = "unix:/" + id;
    in.spare = spare;
    state.add_instance(in);
  }
  void start() {
    tasks = std::make_unique<TaskManager>(state, hosts.agents, *pool, live, settings, system_clock());
    tasks->resume();
  }
  void restart(const std::function<void()>& meanwhile) {
    tasks->shut_down();
    meanwhile();
    start();
  }
  void replicate(int count, const std::string& source = "m") {
    task_id = tasks->create_replicated_instances(source, count, "", {}, 0, "", "[]").id;
  }
  void wait(const char* what, const std::function<bool()>& condition) {
    for (int n = 0; n < 4000 && !condition(); ++n) std::this_thread::sleep_for(Millis(5));
    ASSERT_TRUE(condition()) << what;
  }
  void wait_begun(const std::string& what) {
    wait(what.c_str(), [&] { return hosts.has_begun(what); });
  }
  // The task's end: the states of its replicas.
  std::string ended() {
    wait("the task's end", [&] { return state.task(task_id).ended(); });
    std::string out;
    for (const Replica& replica : state.replicas(task_id)) out += (out.empty() ? "" : " ") + to_text(replica.state);
    return out;
  }
  // A moment in which much would happen if it could.
  void polls() {
    const auto before = hosts.agents.calls("get_job").size();
    wait("polls", [&] { return hosts.agents.calls("get_job").size() > before + 6; });
  }
  std::string events() {
    std::string out;
    for (const Event& event : state.last_events(50)) out += event.level + ": " + event.message + "\n";
    return out;
  }

  TempDir dir{fs::temp_directory_path(), "staging"};
  State state{dir.path() / "state.db", system_clock()};
  Live live{10, Seconds(5)};
  ControllerSettings settings;
  std::unique_ptr<Provisioner> pool = make_provisioner(settings.provisioner, settings.agents);
  JobHosts hosts;
  std::unique_ptr<TaskManager> tasks;
  std::string task_id;
};

TEST_F(StagingTest, BeginsWhileTheSnapshotIsMadeAndEndsBeforeTheAttach) {
  replicate(2);
  wait_begun("a stage");
  wait_begun("b stage");
  EXPECT_EQ(hosts.state("m", "snapshot"), "running");
  wait("views",
       [&] { return live.job(task_id, 1) && live.job(task_id, 1)->phase == "follow" && live.job(task_id, 2); });
  const auto asked = hosts.agents.calls("stage_replication_snapshot");
  const std::string first = asked.at(0).address == "unix:/a" ? "1" : "2";
  EXPECT_EQ(asked.at(0).params, R"({"snapshot_href":"the-href","follow":true,"job_id":")" + task_id + "-r1-stage-" +
                                    first + R"(","async":true})");
  hosts.end("a", "stage", "succeeded");
  hosts.end("m", "snapshot", "succeeded");
  wait_begun("a attach");
  polls();
  EXPECT_FALSE(hosts.has_begun("b attach"));
  EXPECT_EQ(live.job(task_id, 2)->phase, "follow");
  hosts.end("b", "stage", "succeeded");
  EXPECT_EQ(ended(), "succeeded succeeded");
  EXPECT_EQ(hosts.agents.calls("cancel_job").size(), 0u);
  EXPECT_THAT(hosts.agents.calls("discard_staged_snapshot"), IsEmpty());
  EXPECT_THAT(events(), Not(HasSubstr("has not fetched")));
}

TEST_F(StagingTest, EndsWithASnapshotThatFails) {
  replicate(2);
  wait_begun("a stage");
  wait_begun("b stage");
  hosts.end("a", "stage", "failed", "NOT_FOUND");  // it has seen it by itself
  hosts.end("m", "snapshot", "failed", "INTERNAL");
  EXPECT_EQ(ended(), "failed failed");
  EXPECT_EQ(hosts.state("b", "stage"), "cancelled");
  EXPECT_EQ(hosts.begun().size(), 3u);
  EXPECT_EQ(state.instance("b").state, InstanceState::spare);
  EXPECT_THAT(events(), Not(HasSubstr("has not fetched")));
}

TEST_F(StagingTest, AnAgentThatDoesNotEndItIsWaitedForOnlySoLong) {
  replicate(1);
  wait_begun("a stage");
  hosts.be_stubborn();
  hosts.end("m", "snapshot", "failed", "INTERNAL");
  EXPECT_EQ(ended(), "failed");
}

TEST_F(StagingTest, AnOlderAgentIsAttachedAllTheSame) {
  hosts.refuse("stage_replication_snapshot", Code::unimplemented);
  replicate(1);
  wait("the question", [&] { return !hosts.agents.calls("stage_replication_snapshot").empty(); });
  hosts.end("m", "snapshot", "succeeded");
  EXPECT_EQ(ended(), "succeeded");
  EXPECT_THAT(events(), HasSubstr("info: a has not fetched the snapshot while it was made, and does it now: there is "
                                  "no such method"));
}

TEST_F(StagingTest, OneThatFailsIsToldAndTheAttachGoesOn) {
  replicate(2);
  wait_begun("a stage");
  wait_begun("b stage");
  hosts.end("a", "stage", "failed", "RESOURCE_EXHAUSTED");
  polls();
  hosts.end("m", "snapshot", "succeeded");
  wait_begun("a attach");
  hosts.end("b", "stage", "failed", "DATA_LOSS");
  EXPECT_EQ(ended(), "succeeded succeeded");
  EXPECT_THAT(events(), HasSubstr("info: a has not fetched the snapshot while it was made, and does it now: because "
                                  "of RESOURCE_EXHAUSTED"));
  EXPECT_THAT(events(), HasSubstr("because of DATA_LOSS"));
}

TEST_F(StagingTest, ASilentHostIsTheAttachsToWaitFor) {
  settings.agents.lost_after = Seconds(30);
  replicate(1);
  wait_begun("m get");
  hosts.be_silent("a", true);
  hosts.end("m", "snapshot", "succeeded");
  wait("the attach", [&] { return !hosts.agents.calls("attach_replication_slave").empty(); });
  hosts.be_silent("a", false);
  hosts.end("a", "stage", "succeeded");
  EXPECT_EQ(ended(), "succeeded");
}

TEST_F(StagingTest, AnotherProcessFindsItsJobs) {
  replicate(2);
  wait_begun("a stage");
  wait_begun("b stage");
  restart([] {});
  wait("views", [&] { return live.job(task_id, 1) && live.job(task_id, 2); });
  restart([&] {
    hosts.end("m", "snapshot", "succeeded");
    hosts.end("a", "stage", "succeeded");
  });
  wait_begun("a attach");
  polls();
  EXPECT_FALSE(hosts.has_begun("b attach"));
  restart([&] { hosts.end("b", "stage", "succeeded"); });
  EXPECT_EQ(ended(), "succeeded succeeded");
  EXPECT_EQ(hosts.begun().size(), 5u) << "none twice";
  EXPECT_THAT(hosts.agents.calls("cancel_job"), IsEmpty());
}

TEST_F(StagingTest, AnotherProcessEndsItWithTheSnapshotThatFailedMeanwhile) {
  replicate(2);
  wait_begun("a stage");
  wait_begun("b stage");
  restart([&] { hosts.end("m", "snapshot", "failed", "INTERNAL"); });
  EXPECT_EQ(ended(), "failed failed");
  EXPECT_EQ(hosts.state("a", "stage") + hosts.state("b", "stage"), "cancelledcancelled");
}

TEST_F(StagingTest, EndsWithATaskThatIsCancelled) {
  replicate(2);
  wait_begun("a stage");
  wait_begun("b stage");
  tasks->cancel(task_id);
  EXPECT_EQ(ended(), "cancelled cancelled");
  EXPECT_EQ(hosts.state("a", "stage") + hosts.state("b", "stage") + hosts.state("m", "snapshot"),
            "cancelledcancelledcancelled");
}

// One that lies ready, and waits for its attach.
TEST_F(StagingTest, WhatIsOfNoUseAnyMoreIsDiscarded) {
  settings.agents.parallel_attaches = 1;
  restart([&] { hosts.at_once.erase("attach_replication_slave"); });
  replicate(2);
  wait_begun("a stage");
  hosts.end("a", "stage", "succeeded");
  wait_begun("b stage");
  hosts.end("b", "stage", "succeeded");
  polls();
  hosts.end("m", "snapshot", "succeeded");
  wait_begun("a attach");
  tasks->cancel(task_id);
  EXPECT_EQ(ended(), "cancelled cancelled");
  EXPECT_TRUE(hosts.has_begun("a discard"));
  EXPECT_TRUE(hosts.has_begun("b discard"));
  EXPECT_FALSE(hosts.has_begun("b attach"));
  EXPECT_THAT(hosts.params("discard_staged_snapshot"), HasSubstr(std::string(R"({"snapshot":)") + kMetadata));
}

TEST_F(StagingTest, WhatCameOfASnapshotThatCannotBeUsedIsDiscarded) {
  hosts.answer_snapshots(
      R"({"master":{"host":"a;b"},"dataset":{"snapshot_href":"the-href"},"replication_user":{"name":"r1"}})");
  replicate(1);
  wait_begun("a stage");
  hosts.end("a", "stage", "succeeded");
  hosts.end("m", "snapshot", "succeeded");
  EXPECT_EQ(ended(), "failed");
  EXPECT_THAT(hosts.begun(), ElementsAre("m get", "a stage", "a discard"));
}

TEST_F(StagingTest, WhatAFailedAttachHasLeftIsDiscarded) {
  hosts.at_once.erase("attach_replication_slave");
  hosts.refuse("stage_replication_snapshot", Code::busy);
  replicate(1);
  wait_begun("m get");
  hosts.end("m", "snapshot", "succeeded");
  wait_begun("a attach");
  hosts.end("a", "attach", "failed", "UNAVAILABLE");
  EXPECT_EQ(ended(), "failed");
  EXPECT_THAT(hosts.begun(), ElementsAre("m get", "a attach", "a discard"));
  EXPECT_EQ(state.replicas(task_id).at(0).error.code, "UNAVAILABLE");
}

TEST_F(StagingTest, ADiscardThatDoesNotEndIsWaitedForOnlySoLong) {
  hosts.at_once.erase("attach_replication_slave");
  hosts.at_once.erase("discard_staged_snapshot");
  hosts.be_stubborn();
  replicate(1);
  wait_begun("a stage");
  hosts.end("a", "stage", "succeeded");
  hosts.end("m", "snapshot", "succeeded");
  wait_begun("a attach");
  hosts.end("a", "attach", "failed", "UNAVAILABLE");
  EXPECT_EQ(ended(), "failed");
  EXPECT_TRUE(hosts.has_begun("a discard"));
}

TEST_F(StagingTest, AHostThatTheAttachWouldRefuseIsLeftAlone) {
  tasks->shut_down();
  NewReplicate in;
  in.source_id = "m";
  in.count = 2;
  task_id = state.start_replicate(in, pick_hosts).id;
  state.set_has_data("a", true);
  start();
  wait_begun("b stage");
  polls();
  EXPECT_FALSE(hosts.has_begun("a stage"));
}

TEST_F(StagingTest, NoTaskWaitsForTheSnapshotOfAnother) {
  settings.agents.parallel_attaches = 1;
  restart([&] {
    add("n", false);
    add("c", true);
  });
  replicate(1);
  wait_begun("a stage");
  replicate(1, "n");
  wait_begun("n get");
  hosts.end("n", "snapshot", "succeeded");
  EXPECT_EQ(ended(), "succeeded");
  EXPECT_EQ(hosts.state("a", "stage"), "running");
}

}  // namespace
}  // namespace guestagent::controller

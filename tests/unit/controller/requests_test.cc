// What a changing request is, when it comes a second time; which hosts a task takes; what it leaves behind.
#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>

#include "controller/good_hosts.h"
#include "controller/provision.h"
#include "controller/request_mark.h"
#include "controller/sqlite.h"
#include "controller/state.h"
#include "controller/task_manager.h"
#include "scripted_agents.h"
#include "tests/support/errors.h"
#include "tests/support/fake_clock.h"

namespace guestagent::controller {
namespace {

using test::code_of;
using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

ReceivedRequest changing(const std::string& method, const std::string& path, const std::string& body,
                         const std::string& key = "k1") {
  ReceivedRequest out;
  out.method = method;
  out.path = path;
  out.body = body;
  out.idempotency_key = key;
  return out;
}

TEST(RequestMark, IsOfMethodPathQueryAndBodyAsJson) {
  const auto mark = [](const ReceivedRequest& request) { return mark_of(request).digest; };
  const ReceivedRequest base = changing("POST", "/instances/m/action", R"({"replicate": {"count": 1, "name": "a"}})");
  EXPECT_EQ(mark(base), mark(changing("POST", "/instances/m/action", R"({ "replicate":{"name":"a","count":1} })")));
  EXPECT_EQ(mark(base), mark(changing("POST", "/instances/m/action", base.body, "k2")));
  for (const ReceivedRequest& other :
       {changing("DELETE", base.path, base.body), changing("POST", "/instances/n/action", base.body),
        changing("POST", base.path, R"({"replicate": {"count": 2, "name": "a"}})"),
        changing("POST", base.path, R"({"replicate": {"count": "1", "name": "a"}})"),
        changing("POST", base.path, R"({"replicate": {"count": 1}})"), changing("POST", base.path, "{}"),
        changing("POST", base.path, ""), changing("POST", base.path, "{"),
        changing("POST", base.path + base.body, "")}) {
    EXPECT_NE(mark(base), mark(other)) << other.method << other.path << other.body;
  }
  ReceivedRequest forced = changing("DELETE", "/instances/m", "");
  const std::string plain = mark(forced);
  forced.query = {{"force", "true"}};
  EXPECT_NE(mark(forced), plain);
  EXPECT_EQ(mark_of(changing("POST", "/", "{}", "")).key, "");
  for (const std::string& bad : {std::string(256, 'k'), std::string("a\nb"), std::string("\xc3\xa4")}) {
    EXPECT_EQ(code_of([&] { mark_of(changing("POST", "/", "{}", bad)); }), "INVALID_ARGUMENT");
  }
}

class Requests : public testing::Test {
 protected:
  NewInstance host(const std::string& id, bool spare = true) {
    NewInstance in;
    in.id = in.name = id;
    in.address = "unix:/" + id;
    in.spare = spare;
    return in;
  }
  Task replicate(const std::string& source, int count, const RequestMark& mark = {}) {
    NewReplicate in;
    in.source_id = source;
    in.count = count;
    in.mark = mark;
    return state->start_replicate(in, pick_hosts);
  }
  void serve(const Task& task, int count, const std::string& account) {
    state->snapshot_taken(task.id, Secret("{}"), "h", account);
    for (int n = 1; n <= count; ++n) state->replica_serving(task.id, n);
    state->replicas_ended(task.id);
    finish(task.id);
  }
  void finish(const std::string& task_id) {
    for (const Cleanup& cleanup : state->cleanups_of(task_id)) state->cleanup_done(cleanup.id);
    state->finish(task_id, "");
  }
  std::vector<std::string> open_cleanups() {
    std::vector<std::string> out;
    for (const Cleanup& cleanup : state->orphan_cleanups()) out.push_back(cleanup.kind + " " + cleanup.subject);
    return out;
  }
  std::string last_event() { return state->last_events(1).at(0).message; }

  FakeClock clock;
  TempDir dir{fs::temp_directory_path(), "requests"};
  std::unique_ptr<State> state = std::make_unique<State>(dir.path() / "state.db", clock);
};

// Each kind of change, as one that can be sent again and again.
TEST_F(Requests, OneThatIsSentAgainIsDoneOnceAndAnotherWithItsKeyNever) {
  for (const char* id : {"m", "a", "b", "c", "d"}) state->add_instance(host(id, std::string(id) != "m"));
  serve(replicate("m", 2), 2, "r1");
  const Task failed = replicate("m", 1);
  state->snapshot_failed(failed.id, {"INTERNAL", "no", ""}, false, false);
  finish(failed.id);
  const Task running = replicate("m", 1);
  const std::vector<std::pair<std::string, std::function<void(const RequestMark&)>>> changes = {
      {"replicate", [&](const RequestMark& mark) { replicate("m", 1, mark); }},
      {"detach", [&](const RequestMark& mark) { state->start_detach("a", "{}", mark); }},
      {"register", [&](const RequestMark& mark) { state->add_instance(host("new"), mark); }},
      {"forget", [&](const RequestMark& mark) { state->forget_instance("b", true, mark); }},
      {"cancel", [&](const RequestMark& mark) { state->request_cancel(running.id, mark); }},
      {"retry", [&](const RequestMark& mark) { state->retry(failed.id, {}, pick_hosts, false, mark); }}};
  state->add_instance(host("e"));
  for (const auto& [name, change] : changes) {
    SCOPED_TRACE(name);
    EXPECT_FALSE(state->repeated({name, "digest"}));
    change({name, "digest"});
    const auto tasks = state->tasks(100).size();
    const auto hosts = state->instances().size();
    const auto events = state->last_events(100).size();
    change({name, "digest"});
    EXPECT_EQ(state->tasks(100).size(), tasks);
    EXPECT_EQ(state->instances().size(), hosts);
    EXPECT_EQ(state->last_events(100).size(), events);
    ASSERT_TRUE(state->repeated({name, "digest"}));
    // Every change with the key of every other.
    for (const auto& [other, with] : changes) {
      const Error refused = error_of([&, &with = with] { with({name, "digest of " + other}); });
      EXPECT_EQ(code_row(refused.code()).wire, "ALREADY_EXISTS") << other;
      const auto known = *state->repeated({name, "digest"});
      EXPECT_THAT(refused.what(), HasSubstr(known.task_id.empty() ? known.instance_id : known.task_id)) << other;
    }
    EXPECT_EQ(state->tasks(100).size(), tasks);
    EXPECT_EQ(state->last_events(100).size(), events);
  }
}

TEST_F(Requests, OneThatWasRefusedLeavesItsKeyFree) {
  state->add_instance(host("m", false));
  EXPECT_EQ(code_of([&] { replicate("m", 1, {"k", "d"}); }), "FAILED_PRECONDITION");
  EXPECT_FALSE(state->repeated({"k", "another"}));
  state->add_instance(host("a"));
  replicate("m", 1, {"k", "d"});
  EXPECT_TRUE(state->repeated({"k", "d"}));
}

TEST_F(Requests, AnOlderStateIsTakenOver) {
  state->add_instance(host("m", false));
  state->add_instance(host("a"));
  const Task task = replicate("m", 1);
  state.reset();
  {
    Sqlite sql(dir.path() / "state.db");
    sql.script(
        "DROP TABLE requests; ALTER TABLE tasks DROP COLUMN overwrite; ALTER TABLE tasks DROP COLUMN target_id; ALTER "
        "TABLE instances DROP COLUMN has_data; "
        "UPDATE tasks SET request_key = 'old'; PRAGMA user_version = 1");
  }
  state = std::make_unique<State>(dir.path() / "state.db", clock);
  EXPECT_EQ(state->task(task.id).state, RunState::running);
  EXPECT_FALSE(state->task(task.id).overwrite);
  EXPECT_FALSE(state->instance("a").has_data);
  EXPECT_THAT(error_of([&] { state->repeated({"old", "digest"}); }).what(), HasSubstr(task.id));
}

TEST_F(Requests, NamesAreUniqueAndAnIdIsAName) {
  state->add_instance(host("m"));
  const auto refused = [&](const std::string& id, const std::string& name) {
    NewInstance in = host("x");
    in.id = id;
    in.name = name;
    return code_of([&] { state->add_instance(in); });
  };
  EXPECT_EQ(refused("x", "m"), "ALREADY_EXISTS");
  EXPECT_EQ(refused("", "m"), "ALREADY_EXISTS");
  NewInstance named = host("y");
  named.name = "other";
  state->add_instance(named);
  EXPECT_EQ(refused("x", "y"), "ALREADY_EXISTS");      // the id of another
  EXPECT_EQ(refused("other", "z"), "ALREADY_EXISTS");  // the name of another as an id
  EXPECT_EQ(refused("other", ""), "ALREADY_EXISTS");
  // Two of one name, from before names were unique.
  state.reset();
  {
    Sqlite sql(dir.path() / "state.db");
    sql.script("UPDATE instances SET name = 'm' WHERE id = 'y'");
    sql.script(
        "INSERT INTO instances SELECT 'z', name, 'unix:/z', flavor, availability_zone, volume_size, nics, origin, "
        "state, NULL, "
        "0, '', created_at, 0 FROM instances WHERE id = 'y'");
    sql.script("UPDATE instances SET name = 'twice' WHERE id IN ('y', 'z')");
  }
  state = std::make_unique<State>(dir.path() / "state.db", clock);
  const Error ambiguous = error_of([&] { state->instance("twice"); });
  EXPECT_EQ(code_row(ambiguous.code()).wire, "FAILED_PRECONDITION");
  EXPECT_THAT(ambiguous.hint(), HasSubstr("y, z"));
  EXPECT_EQ(state->instance("y").id, "y");
}

TEST_F(Requests, HostsThatAreMadeGetNamesThatNobodyHas) {
  state->add_instance(host("m", false));
  state->add_instance(host("m-slave1"));
  state->add_instance(host("n2"));
  NewReplicate in;
  in.source_id = "m";
  in.count = 3;
  in.provision = true;
  const auto names = [&](const Task& task) {
    std::vector<std::string> out;
    for (const Replica& replica : state->replicas(task.id)) out.push_back(replica.instance_name);
    return out;
  };
  EXPECT_THAT(names(state->start_replicate(in, pick_hosts)), ElementsAre("m-slave2", "m-slave3", "m-slave4"));
  in.name = "n";
  EXPECT_THAT(names(state->start_replicate(in, pick_hosts)), ElementsAre("n1", "n3", "n4"));
}

TEST_F(Requests, AReplicaThatIsForgottenKeepsWhatItFollowsWith) {
  for (const char* id : {"m", "a", "b"}) state->add_instance(host(id, std::string(id) != "m"));
  serve(replicate("m", 2), 2, "r1");
  const Error refused = error_of([&] { state->forget_instance("a", false); });
  EXPECT_THAT(refused.hint(), HasSubstr("stays on its source"));
  state->forget_instance("a", true);
  EXPECT_THAT(last_event(), HasSubstr("it goes on following m, where its replication account r1 stays"));
  EXPECT_THAT(open_cleanups(), IsEmpty());
  // Nor does the account go with the last replica that the controller knows of.
  const Task detach = state->start_detach("b", "{}");
  state->detached(detach.id);
  EXPECT_THAT(state->cleanups_of(detach.id), IsEmpty());
  finish(detach.id);
  EXPECT_THAT(open_cleanups(), IsEmpty());
}

TEST_F(Requests, AnAccountThatGoesWithAForgottenHostIsTold) {
  for (const char* id : {"m", "a"}) state->add_instance(host(id, std::string(id) != "m"));
  const Task task = replicate("m", 1);
  state->snapshot_taken(task.id, Secret("{}"), "h", "r1");
  state->replica_failed(task.id, 1, {"UNAVAILABLE", "no", ""}, State::HostAfter::lost, false);
  state->replicas_ended(task.id);
  finish(task.id);
  state->forget_instance("a", false);
  EXPECT_THAT(last_event(), HasSubstr("account r1, which nobody else uses, is dropped"));
}

TEST_F(Requests, OldTasksGoAndTheRestStays) {
  for (const char* id : {"m", "a", "b"}) state->add_instance(host(id, std::string(id) != "m"));
  const auto fail = [&](const std::string& key, bool lost) {
    const Task task = replicate("m", 1, {key, "d"});
    state->snapshot_failed(task.id, {"INTERNAL", "no", ""}, lost, false);
    finish(task.id);
    return task.id;
  };
  const std::string old = fail("old", false), open = fail("open", true);
  clock.advance(std::chrono::hours(24));
  const std::string running = replicate("m", 1, {"running", "d"}).id;
  clock.advance(std::chrono::hours(24));
  const std::string young = fail("young", false);
  state->drop_tasks_before(clock.now() - std::chrono::hours(1));
  std::vector<std::string> left;
  for (const Task& task : state->tasks(10)) left.push_back(task.id);
  EXPECT_THAT(left, ElementsAre(young, running, open));
  EXPECT_THAT(state->replicas(old), IsEmpty());
  EXPECT_FALSE(state->repeated({"old", "d"}));
  EXPECT_TRUE(state->repeated({"open", "d"}));
  EXPECT_EQ(state->task_counts(), (std::map<RunState, int>{{RunState::failed, 2}, {RunState::running, 1}}));
  // The newest stays however old it is.
  state->drop_tasks_before(clock.now() + std::chrono::hours(1));
  EXPECT_EQ(state->task(young).id, young);
}

// --- which hosts

struct Answer {
  bool silent = false, has_data = false;
};

class PoolHosts : public Requests {
 protected:
  std::map<std::string, Answer> answers;
  ScriptedAgents agents{[this](const ScriptedAgents::Call& call, int) -> std::string {
    const Answer answer = answers[call.address.substr(6)];
    if (answer.silent) throw silence();
    return std::string(R"({"host":{"has_user_data":)") + (answer.has_data ? "true" : "false") + "}}";
  }};
  Live live{10, Seconds(5)};

  // The hosts that are found, or why none.
  std::string found(int count, bool overwrite = false) {
    GoodHosts good(*state, agents, live, "m", overwrite);
    try {
      good.find({}, count, {}, {});
    } catch (const Error& e) {
      return std::string(e.what()) + " | " + e.hint();
    }
    std::string out;
    for (const std::string& id : good.pick()(state->spare_hosts("m"), {}, count)) out += id;
    return out;
  }
};

TEST_F(PoolHosts, ThoseThatDoNotAnswerOrHaveDataAreLeftOut) {
  for (const char* id : {"m", "a", "b", "c", "d"}) state->add_instance(host(id, std::string(id) != "m"));
  EXPECT_EQ(found(2), "ab");
  answers["a"].silent = true;
  answers["b"].has_data = true;
  EXPECT_EQ(found(2), "cd");
  EXPECT_EQ(found(2, true), "bc");
  EXPECT_TRUE(state->instance("b").has_data);
  // One that the monitor knows to be silent is asked only where too few others are there: it may have been mended
  // since.
  LiveStatus away;
  away.verdict = Verdict::unreachable;
  live.set_status("c", away);
  const auto asked = agents.calls().size();
  EXPECT_EQ(found(1), "d");
  const auto calls = agents.calls();
  EXPECT_FALSE(std::any_of(calls.begin() + static_cast<std::ptrdiff_t>(asked), calls.end(),
                           [](const auto& call) { return call.address == "unix:/c"; }));
  EXPECT_EQ(found(2), "cd");
  answers["c"].silent = true;
  EXPECT_THAT(found(2), HasSubstr("only 1 of the 1 free hosts fits"));
  for (const char* words :
       {"a does not answer (", "b has data of its own", "c does not answer (", "\"overwrite\": true"})
    EXPECT_THAT(found(2), HasSubstr(words));
  EXPECT_THAT(found(3, true), Not(HasSubstr("overwrite")));
}

TEST_F(PoolHosts, NoTaskIsBegunForThem) {
  for (const char* id : {"m", "a"}) state->add_instance(host(id, std::string(id) != "m"));
  ControllerSettings settings;
  const auto pool = make_provisioner(settings.provisioner, settings.agents);
  TaskManager tasks(*state, agents, *pool, live, settings, clock);
  for (const Answer& bad : {Answer{.silent = true}, Answer{.has_data = true}}) {
    answers["a"] = bad;
    EXPECT_EQ(code_of([&] { tasks.create_replicated_instances("m", 1, "", {}, 0, "", "[]"); }), "FAILED_PRECONDITION");
  }
  EXPECT_THAT(state->tasks(10), IsEmpty());
  EXPECT_EQ(state->instance("a").state, InstanceState::spare);
  EXPECT_THAT(agents.calls("get_replication_snapshot"), IsEmpty());
}

TEST_F(PoolHosts, ATaskWithoutAThreadGetsOneLater) {
  for (const char* id : {"m", "a"}) state->add_instance(host(id, std::string(id) != "m"));
  ControllerSettings settings;
  settings.agents.lost_after = Millis(0);
  const auto pool = make_provisioner(settings.provisioner, settings.agents);
  std::atomic<int> refusals{2};
  TaskManager tasks(
      *state, agents, *pool, live, settings, system_clock(), [](const std::string&, std::stop_token) {},
      [&](std::function<void()> work) {
        if (refusals-- > 0) throw std::system_error(EAGAIN, std::generic_category());
        return std::jthread(std::move(work));
      });
  const Task task = tasks.create_replicated_instances("m", 1, "", {}, 0, "", "[]");
  EXPECT_EQ(state->task(task.id).state, RunState::running);
  answers["m"].silent = true;
  tasks.resume();
  for (int n = 0; n < 2000 && !state->task(task.id).ended(); ++n) std::this_thread::sleep_for(Millis(10));
  EXPECT_EQ(state->task(task.id).state, RunState::failed);
  tasks.shut_down();
}

}  // namespace
}  // namespace guestagent::controller

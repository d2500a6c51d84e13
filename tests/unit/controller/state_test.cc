#include "controller/state.h"

#include <gmock/gmock.h>

#include "controller/provision.h"
#include "controller/sqlite.h"
#include "tests/support/errors.h"
#include "tests/support/fake_clock.h"

namespace guestagent::controller {
namespace {

using test::code_of;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class StateTest : public testing::Test {
 protected:
  void add(const std::string& id, bool spare) {
    NewInstance in;
    in.id = in.name = id;
    in.address = "unix:/" + id;
    in.spare = spare;
    state->add_instance(in);
  }
  Task replicate(const std::string& source, int count) {
    NewReplicate in;
    in.source_id = source;
    in.count = count;
    return state->start_replicate(in, pick_hosts);
  }
  // All of a task that goes well, on the account of this name.
  Task make(const std::string& source, int count, const std::string& account) {
    const Task task = replicate(source, count);
    state->snapshot_taken(task.id, Secret("{}"), "file:///" + account, account);
    for (int n = 1; n <= count; ++n) state->replica_serving(task.id, n);
    state->replicas_ended(task.id);
    finish(task.id);
    return task;
  }
  void finish(const std::string& task_id) {
    for (const Cleanup& cleanup : state->cleanups_of(task_id)) state->cleanup_done(cleanup.id);
    state->finish(task_id, "");
  }
  Task detach(const std::string& id) {
    const Task task = state->start_detach(id, "{}");
    state->detached(task.id);
    return task;
  }
  std::vector<std::string> kinds(const std::string& task_id) {
    std::vector<std::string> out;
    for (const Cleanup& cleanup : state->cleanups_of(task_id)) out.push_back(cleanup.kind + " " + cleanup.subject);
    return out;
  }
  std::vector<std::string> ids(const std::string& id) {
    std::vector<std::string> out;
    for (const TopologyEntry& entry : state->topology(id)) out.push_back(entry.id + "<" + entry.source_id.value_or(""));
    return out;
  }

  FakeClock clock;
  TempDir dir{fs::temp_directory_path(), "state"};
  std::unique_ptr<State> state = std::make_unique<State>(dir.path() / "state.db", clock);
};

TEST_F(StateTest, TopologyIsTheTreeInOrderOfAsking) {
  for (const char* id : {"m", "a", "b", "c", "d"}) add(id, std::string(id) != "m");
  EXPECT_THAT(ids("m"), ElementsAre("m<"));
  const Task task = replicate("m", 3);
  state->snapshot_taken(task.id, Secret("{}"), "h", "r1");
  for (const int n : {3, 1, 2}) state->replica_serving(task.id, n);  // in whatever order they end
  state->replicas_ended(task.id);
  finish(task.id);
  make("a", 1, "r2");
  EXPECT_THAT(ids("c"), ElementsAre("m<", "a<m", "d<a", "b<m", "c<m"));
  EXPECT_EQ(ids("d"), ids("m"));
  detach("a");
  EXPECT_THAT(ids("d"), ElementsAre("a<", "d<a"));
  EXPECT_THAT(ids("m"), ElementsAre("m<", "b<m", "c<m"));
}

TEST_F(StateTest, AnAccountGoesWithItsLastUserAndNotBefore) {
  for (const char* id : {"m", "a", "b", "c"}) add(id, std::string(id) != "m");
  make("m", 2, "r1");
  make("m", 1, "r2");
  EXPECT_THAT(kinds(detach("a").id), IsEmpty());
  EXPECT_THAT(kinds(detach("b").id), ElementsAre("account r1"));
  EXPECT_THAT(kinds(detach("c").id), ElementsAre("account r2"));
}

TEST_F(StateTest, AnAccountThatNoReplicaCameToUseGoesAtOnce) {
  for (const char* id : {"m", "a"}) add(id, std::string(id) != "m");
  const Task task = replicate("m", 1);
  state->snapshot_taken(task.id, Secret("{}"), "h", "r1");
  state->replica_failed(task.id, 1, {"INTERNAL", "no", ""}, State::HostAfter::put_back, false);
  EXPECT_THAT(kinds(task.id), IsEmpty());
  state->replicas_ended(task.id);
  EXPECT_THAT(kinds(task.id), ElementsAre("snapshot h", "account r1"));
  EXPECT_EQ(state->instance("a").state, InstanceState::spare);
}

TEST_F(StateTest, AnAccountThatALostHostMayUseStays) {
  for (const char* id : {"m", "a"}) add(id, std::string(id) != "m");
  const Task task = replicate("m", 1);
  state->snapshot_taken(task.id, Secret("{}"), "h", "r1");
  state->replica_failed(task.id, 1, {"UNAVAILABLE", "no", ""}, State::HostAfter::lost, false);
  state->replicas_ended(task.id);
  EXPECT_THAT(kinds(task.id), ElementsAre("snapshot h"));
  finish(task.id);
  const auto open = state->orphan_cleanups();
  ASSERT_THAT(open, SizeIs(1));
  EXPECT_EQ(open[0].kind, "attach_job");
  state->lost_attach_resolved(open[0], true);
  state->lost_attach_resolved(open[0], true);  // two had asked
  EXPECT_THAT(ids("m"), ElementsAre("m<", "a<m"));
  EXPECT_EQ(state->task(task.id).state, RunState::failed);
  EXPECT_EQ(state->replicas(task.id)[0].state, ReplicaState::succeeded);
  EXPECT_THAT(kinds(detach("a").id), ElementsAre("account r1"));
}

TEST_F(StateTest, ForgettingALostHostSetsItsAccountFree) {
  for (const char* id : {"m", "a"}) add(id, std::string(id) != "m");
  const Task task = replicate("m", 1);
  state->snapshot_taken(task.id, Secret("{}"), "h", "r1");
  state->replica_failed(task.id, 1, {"UNAVAILABLE", "no", ""}, State::HostAfter::lost, false);
  state->replicas_ended(task.id);
  finish(task.id);
  state->forget_instance("a", false);
  const auto open = state->orphan_cleanups();
  ASSERT_THAT(open, SizeIs(1));
  EXPECT_EQ(open[0].kind + open[0].subject, "accountr1");
}

TEST_F(StateTest, ServerIdsAreUniqueAndStay) {
  add("m", false);
  state->set_reported_server_id("m", 100000);
  for (int n = 0; n < 50; ++n) add("h" + std::to_string(n), true);
  make("m", 50, "r1");
  std::set<std::uint64_t> seen{100000};
  for (const Instance& instance : state->instances()) {
    if (instance.id == "m") continue;
    EXPECT_TRUE(seen.insert(instance.server_id).second) << instance.server_id;
    EXPECT_LE(instance.server_id, 4294967295u);
  }
  const auto before = state->instance("h7").server_id;
  EXPECT_GT(before, 0u);
  detach("h7");
  state.reset();
  state = std::make_unique<State>(dir.path() / "state.db", clock);
  EXPECT_EQ(state->instance("h7").server_id, before);
}

TEST_F(StateTest, MetadataIsKeptOnlyWhileItIsNeeded) {
  for (const char* id : {"m", "a"}) add(id, std::string(id) != "m");
  const Task task = replicate("m", 1);
  state->snapshot_taken(task.id, Secret(R"({"password":"hidden-word"})"), "h", "r1");
  EXPECT_FALSE(state->snapshot_metadata(task.id).empty());
  state->replica_serving(task.id, 1);
  state->replicas_ended(task.id);
  EXPECT_TRUE(state->snapshot_metadata(task.id).empty());
  state.reset();
  EXPECT_EQ(read_file(dir.path() / "state.db", 16 << 20).find("hidden-word"), std::string::npos);
}

TEST_F(StateTest, HostsAreTakenOnceAndRefusalsChangeNothing) {
  for (const char* id : {"m", "a", "b"}) add(id, std::string(id) != "m");
  replicate("m", 1);
  EXPECT_EQ(code_of([&] { replicate("m", 2); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { replicate("a", 1); }), "FAILED_PRECONDITION");  // is being made itself
  EXPECT_EQ(code_of([&] { replicate("nobody", 1); }), "NOT_FOUND");
  EXPECT_THAT(state->tasks(10), SizeIs(1));
  EXPECT_EQ(state->instance("b").state, InstanceState::spare);
  EXPECT_EQ(code_of([&] { state->forget_instance("m", true); }), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of([&] { state->forget_instance("a", true); }), "FAILED_PRECONDITION");
}

TEST_F(StateTest, ASparePoolHostThatBecomesASourceLeavesThePool) {
  for (const char* id : {"a", "b", "c"}) add(id, true);
  make("a", 1, "r1");
  const Task next = replicate("b", 1);
  EXPECT_EQ(state->replicas(next.id)[0].instance_id, "c");
  EXPECT_EQ(state->instance("a").state, InstanceState::active);
}

TEST_F(StateTest, RetryTakesTheSameHostsWhereItCan) {
  for (const char* id : {"m", "a", "b", "c"}) add(id, std::string(id) != "m");
  const Task task = replicate("m", 2);
  EXPECT_EQ(code_of([&] { state->retry(task.id, {}, pick_hosts); }), "FAILED_PRECONDITION");
  state->snapshot_taken(task.id, Secret("{}"), "h", "r1");
  state->replica_serving(task.id, 1);
  state->replica_failed(task.id, 2, {"INTERNAL", "no", ""}, State::HostAfter::put_back, false);
  state->replicas_ended(task.id);
  finish(task.id);
  EXPECT_EQ(state->task(task.id).state, RunState::failed);
  const Task again = state->retry(task.id, {}, pick_hosts);
  EXPECT_EQ(again.round, 2);
  EXPECT_EQ(again.job_id("snapshot"), task.id + "-r2-snapshot");
  EXPECT_EQ(state->replicas(task.id)[1].instance_id, "b");
  state->snapshot_failed(task.id, {"INTERNAL", "no", ""}, false, false);
  finish(task.id);
  state->retry(task.id, {2}, pick_hosts);
  EXPECT_EQ(state->replicas(task.id)[1].instance_id, "c");
  EXPECT_EQ(state->replicas(task.id)[1].server_id, state->instance("c").server_id);
  EXPECT_EQ(state->instance("b").state, InstanceState::spare);
}

TEST_F(StateTest, ObserversHearOfACommitAndOfNothingElse) {
  std::vector<Change> seen;
  state->observe([&](const std::vector<Change>& changes) { seen.insert(seen.end(), changes.begin(), changes.end()); });
  add("m", false);
  EXPECT_THAT(seen, SizeIs(3));
  seen.clear();
  EXPECT_THROW(add("m", false), Error);
  EXPECT_THAT(seen, IsEmpty());
}

TEST_F(StateTest, EventsAreReplayedAndDropped) {
  add("m", false);
  const Event first = state->add_event({.kind = "status", .message = "one"});
  clock.advance(Seconds(100));
  state->add_event({.kind = "status", .message = "two"});
  EXPECT_THAT(state->events_after(first.seq, 10), SizeIs(1));
  state->drop_events_before(clock.now());
  ASSERT_THAT(state->last_events(10), SizeIs(1));
  EXPECT_EQ(state->last_events(10)[0].message, "two");
}

TEST_F(StateTest, ANewerSchemaAndASecondControllerAreRefused) {
  EXPECT_EQ(code_of([&] { State(dir.path() / "state.db", clock); }), "UNAVAILABLE");
  state.reset();
  {
    Sqlite sql(dir.path() / "state.db");
    sql.script("PRAGMA user_version = 99");
  }
  EXPECT_EQ(code_of([&] { State(dir.path() / "state.db", clock); }), "FAILED_PRECONDITION");
}

TEST_F(StateTest, AFileThatIsNoDatabaseIsRefused) {
  write_file_atomic(dir.path() / "no.db", std::string(5000, 'x'));
  EXPECT_EQ(code_of([&] { State(dir.path() / "no.db", clock); }), "DATA_LOSS");
}

}  // namespace
}  // namespace guestagent::controller

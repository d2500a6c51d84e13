#include "agent/jobs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <future>
#include <regex>
#include <thread>

#include "base/json.h"
#include "base/log.h"
#include "tests/support/errors.h"
#include "tests/support/fake_clock.h"
#include "tests/support/gate.h"

namespace guestagent {
namespace {

using test::code_of;
using test::error_of;
using test::Gate;
using testing::HasSubstr;

unsigned mode_of(const fs::path& path) {
  struct stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 07777;
}

class JobsTest : public testing::Test {
 protected:
  JobsTest() {
    settings_.state_dir = dir_.path() / "state";
    settings_.job_history_days = 30;
    log_setup(LogLevel::error, LogFormat::logfmt);
  }

  Jobs::Recover recover() {
    return [this](const std::string& method, JobContext& job) {
      recovered_.push_back(method);
      for (const auto& step : job.journal().steps()) steps_.push_back(step.name);
      if (recovery_error_) throw *recovery_error_;
      return recovery_;
    };
  }
  std::unique_ptr<Jobs> make(Jobs::Observer observer = {}) {
    return std::make_unique<Jobs>(settings_, recover(), clock_, std::move(observer));
  }
  fs::path file(const std::string& name) const { return settings_.state_dir / "jobs" / name; }

  // Runs `body` in a process of its own, which is killed there.
  template <typename F>
  void in_dead_process(F body) {
    const pid_t child = ::fork();
    if (child == 0) {
      body();
      ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
  }

  // A changing job that died after it had journaled `steps`.
  void leave_dead_job(const std::string& id, const std::vector<std::pair<std::string, std::string>>& steps,
                      JobKind kind = JobKind::changing) {
    in_dead_process([&] {
      Jobs& jobs = *make().release();
      Gate begun;
      jobs.start("do_it", kind, id, "digest", [&](JobContext& job) -> std::string {
        for (const auto& [name, data] : steps) job.journal().record(name, data);
        begun.open();
        for (;;) ::pause();
      });
      begun.wait();
    });
  }

  TempDir dir_{fs::temp_directory_path(), "jobs-test-"};
  AgentSettings settings_;
  FakeClock clock_;
  std::vector<std::string> recovered_, steps_;
  Jobs::Recovery recovery_;
  std::optional<Error> recovery_error_;
};

TEST_F(JobsTest, AnswersItsResultAndKeepsIt) {
  std::string id;
  {
    const auto jobs = make();
    id = jobs->start("do_it", JobKind::changing, {}, "digest", [](JobContext&) { return R"({"password":"pw"})"; });
    const JobRecord record = jobs->wait(id, Millis::max());
    EXPECT_EQ(record.state, JobState::succeeded);
    EXPECT_EQ(record.result, R"({"password":"pw"})");
    EXPECT_TRUE(record.finished_at);
  }
  EXPECT_EQ(make()->get(id).result, R"({"password":"pw"})");
  EXPECT_EQ(mode_of(file(id + ".json")), 0600u);
  EXPECT_EQ(mode_of(settings_.state_dir / "jobs"), 0700u);
  EXPECT_FALSE(fs::exists(file(id + ".journal")));
  EXPECT_FALSE(fs::exists(file(id + ".owner")));
}

TEST_F(JobsTest, WhatNeedsAnIdleHostIsDoneOnlyThere) {
  const auto jobs = make();
  int done = 0;
  EXPECT_TRUE(jobs->while_idle([&] { ++done; }));
  const auto other = make();  // as of another process, by the lock file
  bool ran = false;
  const std::string id = jobs->start("do_it", JobKind::changing, {}, "digest", [&](JobContext&) {
    ran = jobs->while_idle([&] { ++done; }) || other->while_idle([&] { ++done; });
    return "{}";
  });
  EXPECT_EQ(jobs->wait(id, Millis::max()).state, JobState::succeeded);
  EXPECT_FALSE(ran);
  EXPECT_TRUE(other->while_idle([&] { ++done; }));
  EXPECT_EQ(done, 2);
}

TEST_F(JobsTest, AFailureIsUndoneByItsJournalAndTold) {
  recovery_.what = "put it back";
  const auto jobs = make();
  const std::string id = jobs->start("do_it", JobKind::changing, {}, "digest", [](JobContext& job) -> std::string {
    job.journal().record("made", R"({"what":"a thing"})");
    throw Error(Code::data_loss, "reading: a thing: torn", "take another");
  });
  const JobRecord record = jobs->wait(id, Millis::max());
  EXPECT_EQ(record.state, JobState::failed);
  const JsonDocument error = parse_json(*record.error, "error");
  EXPECT_STREQ(error["data"]["code"].GetString(), "DATA_LOSS");
  EXPECT_STREQ(error["data"]["hint"].GetString(), "take another");
  EXPECT_EQ(error["data"]["job_id"].GetString(), id);
  EXPECT_THAT(recovered_, testing::ElementsAre("do_it"));
  EXPECT_THAT(steps_, testing::Contains("made"));
  EXPECT_THAT(record.warnings, testing::Contains(HasSubstr("put it back")));
  EXPECT_FALSE(fs::exists(file(id + ".journal")));
}

TEST_F(JobsTest, AFailureThatChangedNothingIsNotUndone) {
  const auto jobs = make();
  const std::string id = jobs->start("do_it", JobKind::changing, {}, "digest",
                                     [](JobContext&) -> std::string { throw std::runtime_error("no Error at all"); });
  const JobRecord record = jobs->wait(id, Millis::max());
  EXPECT_EQ(record.state, JobState::failed);
  EXPECT_THAT(*record.error, HasSubstr("INTERNAL"));
  EXPECT_TRUE(recovered_.empty());
}

TEST_F(JobsTest, WhatCannotBeRemovedIsNamedAndTriedAgain) {
  recovery_.left = "object x is left";
  const auto jobs = make();
  const std::string id = jobs->start("do_it", JobKind::changing, {}, "digest", [](JobContext& job) -> std::string {
    job.journal().record("objects");
    throw Error(Code::unavailable, "the store is away");
  });
  EXPECT_THAT(*jobs->wait(id, Millis::max()).error, HasSubstr("object x is left"));
  EXPECT_TRUE(fs::exists(file(id + ".journal")));

  recovery_ = {"removed object x", ""};
  jobs->recover();
  EXPECT_FALSE(fs::exists(file(id + ".journal")));
  const JobRecord record = jobs->get(id);
  EXPECT_EQ(record.state, JobState::failed);
  EXPECT_THAT(record.warnings, testing::Contains(HasSubstr("removed object x")));
  jobs->recover();
  EXPECT_EQ(recovered_.size(), 2u);
}

TEST_F(JobsTest, AnUndoThatFailsStopsTheNextJobBeforeItBegins) {
  recovery_error_ = Error(Code::unavailable, "the server does not come up");
  const auto jobs = make();
  const std::string first = jobs->start("do_it", JobKind::changing, {}, "digest", [](JobContext& job) -> std::string {
    job.journal().record("switched");
    throw Error(Code::internal, "it broke");
  });
  EXPECT_THAT(*jobs->wait(first, Millis::max()).error, HasSubstr("the server does not come up"));

  bool ran = false;
  const auto work = [&](JobContext&) {
    ran = true;
    return "{}";
  };
  const JobRecord second = jobs->wait(jobs->start("other", JobKind::changing, {}, "digest", work), Millis::max());
  EXPECT_EQ(second.state, JobState::failed);
  EXPECT_THAT(*second.error, testing::AllOf(HasSubstr("FAILED_PRECONDITION"), HasSubstr(first)));
  EXPECT_FALSE(ran);

  recovery_error_.reset();
  EXPECT_EQ(jobs->wait(jobs->start("other", JobKind::changing, {}, "digest", work), Millis::max()).state,
            JobState::succeeded);
  EXPECT_TRUE(ran);
}

TEST_F(JobsTest, ARepeatIsTheSameJob) {
  const auto jobs = make();
  int runs = 0;
  const auto work = [&](JobContext&) { return ++runs, "{}"; };
  EXPECT_EQ(jobs->start("do_it", JobKind::changing, "mine", "digest", work), "mine");
  jobs->wait("mine", Millis::max());
  EXPECT_EQ(jobs->start("do_it", JobKind::changing, "mine", "digest", work), "mine");
  EXPECT_EQ(code_of([&] { jobs->start("do_it", JobKind::changing, "mine", "other", work); }), "ALREADY_EXISTS");
  EXPECT_EQ(code_of([&] { jobs->start("do_that", JobKind::changing, "mine", "digest", work); }), "ALREADY_EXISTS");
  EXPECT_EQ(jobs->wait("mine", Millis::max()).state, JobState::succeeded);
  EXPECT_EQ(make()->start("do_it", JobKind::changing, "mine", "digest", work), "mine");
  EXPECT_EQ(runs, 1);
}

TEST_F(JobsTest, ARepeatWhileItRunsIsTheSameJobAndNotBusy) {
  const auto jobs = make();
  Gate gate;
  jobs->start("do_it", JobKind::changing, "mine", "digest", [&](JobContext&) { return gate.wait(), "{}"; });
  EXPECT_EQ(jobs->start("do_it", JobKind::changing, "mine", "digest", [](JobContext&) { return "[]"; }), "mine");
  EXPECT_EQ(make()->start("do_it", JobKind::changing, "mine", "digest", [](JobContext&) { return "[]"; }), "mine");
  gate.open();
  EXPECT_EQ(jobs->wait("mine", Millis::max()).result, "{}");
}

TEST_F(JobsTest, RefusesAnIdThatIsNoFileName) {
  const auto jobs = make();
  const std::vector<std::string> bad = {"", "../x", ".hidden", "a/b", "a b", "-x", std::string(65, 'a'), "ä"};
  for (const std::string& id : bad) {
    const auto start = [&] { jobs->start("do_it", JobKind::changing, id, "d", [](JobContext&) { return "{}"; }); };
    EXPECT_EQ(code_of(start), "INVALID_ARGUMENT") << id;
    EXPECT_EQ(code_of([&] { jobs->get(id); }), "INVALID_ARGUMENT") << id;
  }
  EXPECT_EQ(jobs->start("do_it", JobKind::changing, std::string(64, 'a'), "d", [](JobContext&) { return "{}"; }),
            std::string(64, 'a'));
}

TEST_F(JobsTest, OneChangingJobAtATimeAndTheSecondHearsWhich) {
  const auto jobs = make();
  Gate gate;
  jobs->start("copy_it", JobKind::changing, "first", "digest", [&](JobContext&) { return gate.wait(), "{}"; });
  const Error busy =
      error_of([&] { jobs->start("do_it", JobKind::changing, "second", "digest", [](JobContext&) { return "{}"; }); });
  EXPECT_EQ(busy.code(), Code::busy);
  EXPECT_THAT(busy.what(),
              testing::AllOf(HasSubstr("first"), HasSubstr("copy_it"), HasSubstr(std::to_string(::getpid()))));
  // Reading needs no lock.
  const std::string reading = jobs->start("look", JobKind::reading, {}, "digest", [](JobContext&) { return "{}"; });
  EXPECT_EQ(jobs->wait(reading, Millis::max()).state, JobState::succeeded);
  gate.open();
  jobs->wait("first", Millis::max());
  EXPECT_EQ(code_of([&] { jobs->get("second"); }), "NOT_FOUND");
}

TEST_F(JobsTest, TheNextMayStartAsSoonAsTheLastWasAnswered) {
  const auto jobs = make();
  for (int i = 0; i < 50; ++i) {
    const std::string id = "job-" + std::to_string(i);
    jobs->start("do_it", JobKind::changing, id, "digest", [](JobContext&) { return "{}"; });
    ASSERT_EQ(jobs->wait(id, Millis::max()).state, JobState::succeeded);
  }
}

TEST_F(JobsTest, OneChangingJobAtATimeAcrossProcesses) {
  int to_child[2], to_parent[2];
  ASSERT_EQ(::pipe(to_child) | ::pipe(to_parent), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    const auto jobs = make();
    jobs->start("copy_it", JobKind::changing, "theirs", "digest", [&](JobContext& job) -> std::string {
      job.phase("copy");
      job.progress(17, 40);
      static_cast<void>(!::write(to_parent[1], "x", 1));
      while (!job.stop_token().stop_requested()) std::this_thread::sleep_for(Millis(5));
      throw Error(Code::cancelled, "cancelled on request");
    });
    jobs->wait("theirs", Millis::max());
    static_cast<void>(!::read(to_child[0], &byte, 1));
    ::kill(::getpid(), jobs->get("theirs").state == JobState::cancelled ? SIGKILL : SIGABRT);
  }
  char byte = 0;
  ASSERT_EQ(::read(to_parent[0], &byte, 1), 1);
  const auto jobs = make();
  const Error busy =
      error_of([&] { jobs->start("do_it", JobKind::changing, "ours", "digest", [](JobContext&) { return "{}"; }); });
  EXPECT_EQ(busy.code(), Code::busy);
  EXPECT_THAT(busy.what(), testing::AllOf(HasSubstr("theirs"), HasSubstr(std::to_string(child))));

  EXPECT_EQ(jobs->get("theirs").state, JobState::running);
  EXPECT_EQ(jobs->wait("theirs", Millis(1)).state, JobState::running);
  jobs->recover();  // it is alive: nothing to recover
  EXPECT_TRUE(recovered_.empty());
  jobs->cancel("theirs");
  EXPECT_EQ(jobs->wait("theirs", Millis::max()).state, JobState::cancelled);
  EXPECT_EQ(code_of([&] { jobs->cancel("theirs"); }), "FAILED_PRECONDITION");
  EXPECT_EQ(::write(to_child[1], "x", 1), 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WTERMSIG(status), SIGKILL) << "the other process saw its job cancelled";
  EXPECT_FALSE(fs::exists(file("theirs.cancel")));
}

TEST_F(JobsTest, CancelStopsTheWorkAndSaysSo) {
  const auto jobs = make();
  Gate begun;
  const std::string id = jobs->start("do_it", JobKind::changing, {}, "digest", [&](JobContext& job) -> std::string {
    job.journal().record("made");
    begun.open();
    while (!job.stop_token().stop_requested()) std::this_thread::sleep_for(Millis(1));
    throw Error(Code::internal, "the tool was killed");  // not every work says it in our words
  });
  begun.wait();
  jobs->cancel(id);
  const JobRecord record = jobs->wait(id, Millis::max());
  EXPECT_EQ(record.state, JobState::cancelled);
  EXPECT_THAT(*record.error, testing::AllOf(HasSubstr("CANCELLED"), HasSubstr("the tool was killed")));
  EXPECT_EQ(recovered_.size(), 1u);
}

TEST_F(JobsTest, AWaitEndsWithoutAnErrorWhenItsTimeIsUp) {
  const auto jobs = make();
  Gate gate;
  const std::string id =
      jobs->start("do_it", JobKind::changing, {}, "digest", [&](JobContext&) { return gate.wait(), "{}"; });
  EXPECT_EQ(jobs->wait(id, Millis(1)).state, JobState::running);
  gate.open();
  EXPECT_EQ(jobs->wait(id, Millis::max()).state, JobState::succeeded);
}

TEST_F(JobsTest, TellsPhaseAndProgress) {
  const auto jobs = make();
  Gate gate;
  const std::string id = jobs->start("do_it", JobKind::changing, {}, "digest", [&](JobContext& job) {
    job.phase("copy");
    job.progress(100, 400);
    gate.wait();
    return "{}";
  });
  std::uint64_t seen = 0;
  JobRecord record;
  do {
    record = jobs->wait_change(id, seen, Millis(10000));
  } while (record.progress.done_bytes == 0);
  EXPECT_EQ(record.phase, "copy");
  EXPECT_EQ(record.progress.done_bytes, 100u);
  EXPECT_EQ(record.progress.total_bytes, 400u);
  gate.open();
  while (!record.ended()) record = jobs->wait_change(id, seen, Millis(10000));
  EXPECT_EQ(record.state, JobState::succeeded);
}

TEST_F(JobsTest, TheRateIsThatOfTheLastSeconds) {
  std::promise<double> rate;
  bool told = false;
  const auto jobs = make([&](const JobRecord& record) {
    if (told || record.progress.done_bytes != 5000) return;
    told = true;
    rate.set_value(record.progress.rate);
  });
  const std::string id = jobs->start("do_it", JobKind::changing, {}, "digest", [&](JobContext& job) {
    job.phase("copy");
    clock_.advance(Millis(2000));
    job.progress(5000, 10000);
    EXPECT_DOUBLE_EQ(rate.get_future().get(), 2500);
    return "{}";
  });
  EXPECT_EQ(jobs->wait(id, Millis::max()).state, JobState::succeeded);
}

TEST_F(JobsTest, ADeadJobIsRecoveredAndSaysWhatWasDone) {
  leave_dead_job("dead", {{"made", R"({"what":"a thing"})"}});
  recovery_.what = "took the thing away";
  const auto jobs = make();
  EXPECT_EQ(jobs->get("dead").state, JobState::running);
  EXPECT_EQ(jobs->wait("dead", Millis::max()).state, JobState::running);  // nobody will end it while we wait
  jobs->recover();
  const JobRecord record = jobs->get("dead");
  EXPECT_EQ(record.state, JobState::failed);
  EXPECT_THAT(*record.error, testing::AllOf(HasSubstr("took the thing away"), HasSubstr("UNAVAILABLE")));
  EXPECT_TRUE(record.finished_at);
  EXPECT_THAT(recovered_, testing::ElementsAre("do_it"));
  EXPECT_THAT(steps_, testing::Contains("made"));
  EXPECT_FALSE(fs::exists(file("dead.journal")));
  EXPECT_FALSE(fs::exists(file("dead.owner")));
}

TEST_F(JobsTest, ADeadJobThatRecoveryFinishedHasSucceeded) {
  leave_dead_job("dead", {{"past the point of no return", "{}"}});
  recovery_.what = "finished it";
  recovery_.result = R"({"n":1})";
  const auto jobs = make();
  jobs->recover();
  const JobRecord record = jobs->get("dead");
  EXPECT_EQ(record.state, JobState::succeeded);
  EXPECT_EQ(record.result, R"({"n":1})");
  EXPECT_FALSE(record.error);
  EXPECT_TRUE(record.finished_at);
}

TEST_F(JobsTest, AFailureThatItsUndoFinishedIsASuccessThatTells) {
  recovery_.result = R"({"n":1})";
  const auto jobs = make();
  const std::string id = jobs->start("do_it", JobKind::changing, {}, "digest", [](JobContext& job) -> std::string {
    job.journal().record("past the point of no return");
    throw Error(Code::unavailable, "the server is away");
  });
  const JobRecord record = jobs->wait(id, Millis::max());
  EXPECT_EQ(record.state, JobState::succeeded);
  EXPECT_EQ(record.result, R"({"n":1})");
  EXPECT_FALSE(record.error);
  EXPECT_THAT(record.warnings, testing::Contains(testing::HasSubstr("the server is away")));
}

TEST_F(JobsTest, StartRecoversFirst) {
  leave_dead_job("dead", {{"made", "{}"}});
  const auto jobs = make();
  const std::string id = jobs->start("next", JobKind::changing, {}, "digest", [&](JobContext&) {
    EXPECT_EQ(recovered_.size(), 1u);
    return "{}";
  });
  EXPECT_EQ(jobs->wait(id, Millis::max()).state, JobState::succeeded);
  EXPECT_EQ(jobs->get("dead").state, JobState::failed);
}

// What bars the host is a recovery that throws; what is only left is named to whoever comes next, and tried again until
// it is gone.
TEST_F(JobsTest, WhatIsLeftBarsNobodyAndIsNamed) {
  leave_dead_job("dead", {{"made", "{}"}});
  recovery_.left = "the account repl_x is left: no right";
  const auto jobs = make();
  const auto run = [&](const char* id) {
    jobs->start("next", JobKind::changing, id, "digest", [](JobContext&) { return "{}"; });
    return jobs->wait(id, Millis::max());
  };
  for (const char* id : {"one", "two"}) {
    const JobRecord record = run(id);
    EXPECT_EQ(record.state, JobState::succeeded);
    EXPECT_THAT(record.warnings,
                testing::ElementsAre(testing::AllOf(HasSubstr("job dead"), HasSubstr("the account repl_x is left"))));
  }
  EXPECT_TRUE(fs::exists(file("dead.journal")));
  EXPECT_THAT(*jobs->get("dead").error, HasSubstr("the account repl_x is left"));
  recovery_.left.clear();
  EXPECT_TRUE(run("three").warnings.empty());
  EXPECT_FALSE(fs::exists(file("dead.journal")));

  leave_dead_job("worse", {{"made", "{}"}});
  recovery_error_ = Error(Code::unavailable, "the data is half switched");
  const JobRecord barred = run("four");
  EXPECT_EQ(barred.state, JobState::failed);
  EXPECT_THAT(*barred.error,
              testing::AllOf(HasSubstr("FAILED_PRECONDITION"), HasSubstr("worse"), HasSubstr("half switched")));
}

TEST_F(JobsTest, ADeadJobWhoseResultWasJournaledHasSucceeded) {
  leave_dead_job("dead", {{"made", "{}"}, {"result", R"({"result":{"server_id":7}})"}});
  const auto jobs = make();
  jobs->recover();
  const JobRecord record = jobs->get("dead");
  EXPECT_EQ(record.state, JobState::succeeded);
  EXPECT_EQ(record.result, R"({"server_id":7})");
  EXPECT_FALSE(record.error);
  EXPECT_EQ(recovered_.size(), 1u) << "what was left of it is finished";
}

TEST_F(JobsTest, ADeadJobThatChangedNothingIsOnlyMarked) {
  leave_dead_job("dead", {});
  leave_dead_job("reading", {}, JobKind::reading);
  const auto jobs = make();
  jobs->recover();
  EXPECT_EQ(jobs->get("dead").state, JobState::failed);
  EXPECT_EQ(jobs->get("reading").state, JobState::failed);
  EXPECT_TRUE(recovered_.empty());
}

TEST_F(JobsTest, ARepeatOfADeadJobHearsHowItEnded) {
  leave_dead_job("dead", {{"made", "{}"}, {"result", R"({"result":5})"}});
  const auto jobs = make();
  EXPECT_EQ(jobs->start("do_it", JobKind::changing, "dead", "digest", [](JobContext&) { return "6"; }), "dead");
  EXPECT_EQ(jobs->wait("dead", Millis::max()).result, "5");
}

TEST_F(JobsTest, AFailureAfterTheJournaledResultIsASuccessWithAWarning) {
  const auto jobs = make();
  const std::string id = jobs->start("do_it", JobKind::changing, {}, "digest", [](JobContext& job) -> std::string {
    job.journal().record("result", R"({"result":{"ok":true}})");
    throw Error(Code::internal, "the old data cannot be removed");
  });
  const JobRecord record = jobs->wait(id, Millis::max());
  EXPECT_EQ(record.state, JobState::succeeded);
  EXPECT_EQ(record.result, R"({"ok":true})");
  EXPECT_THAT(record.warnings, testing::Contains(HasSubstr("cannot be removed")));
}

TEST_F(JobsTest, ADamagedRecordIsAFailedJobAndNoCrash) {
  const auto jobs = make();
  jobs->start("do_it", JobKind::changing, "good", "digest", [](JobContext&) { return "{}"; });
  jobs->wait("good", Millis::max());
  const std::string good = read_file(file("good.json"));
  const std::vector<std::string> damaged = {
      "", "{", "[]", "\0\0\0", "{\"job_id\":5}", good, good.substr(0, good.size() / 2)};
  for (std::size_t i = 0; i < damaged.size(); ++i)
    write_file_atomic(file("bad" + std::to_string(i) + ".json"), damaged[i], 0600);
  log_setup(LogLevel::error, LogFormat::logfmt);
  EXPECT_EQ(jobs->list().size(), damaged.size() + 1);
  for (std::size_t i = 0; i < damaged.size(); ++i) {
    const JobRecord record = jobs->get("bad" + std::to_string(i));
    EXPECT_EQ(record.state, JobState::failed) << i;
    EXPECT_THAT(*record.error, HasSubstr("INTERNAL")) << i;
    EXPECT_NO_THROW(parse_json(write_job(record), "record")) << i;
  }
  jobs->recover();
}

TEST_F(JobsTest, AWordThatThisAgentDoesNotKnowIsToldAndNoCrash) {
  const auto jobs = make();
  jobs->start("do_it", JobKind::changing, "good", "digest", [](JobContext&) { return "{}"; });
  jobs->wait("good", Millis::max());
  const std::string good = std::regex_replace(read_file(file("good.json")), std::regex("\"good\""), "\"bad\"");
  log_setup(LogLevel::error, LogFormat::logfmt);
  for (const auto& [key, was] : {std::pair("state", "succeeded"), std::pair("kind", "changing")}) {
    const std::string member = "\"" + std::string(key) + "\":\"";
    write_file_atomic(file("bad.json"), std::regex_replace(good, std::regex(member + was), member + "paused"), 0600);
    const JobRecord record = jobs->get("bad");
    EXPECT_EQ(record.state, JobState::failed);
    EXPECT_THAT(*record.error, HasSubstr("record." + std::string(key) + R"(: unknown: \"paused\")"));
  }
}

TEST_F(JobsTest, ADamagedRecordOfADeadJobIsRecoveredByItsJournal) {
  leave_dead_job("dead", {{"made", "{}"}});
  write_file_atomic(file("dead.json"), "{torn", 0600);
  const auto jobs = make();
  jobs->recover();
  EXPECT_THAT(recovered_, testing::ElementsAre("do_it"));
  EXPECT_FALSE(fs::exists(file("dead.journal")));
}

TEST_F(JobsTest, OldRecordsGoButNeitherNewNorPendingOnes) {
  const auto jobs = make();
  for (const char* id : {"old", "new"}) {
    jobs->start("do_it", JobKind::changing, id, "digest", [](JobContext&) { return "{}"; });
    jobs->wait(id, Millis::max());
    clock_.advance(std::chrono::hours(24 * 20));
  }
  recovery_.left = "something";
  jobs->start("do_it", JobKind::changing, "pending", "digest", [](JobContext& job) -> std::string {
    job.journal().record("made");
    throw Error(Code::internal, "broken");
  });
  jobs->wait("pending", Millis::max());
  jobs->recover();
  EXPECT_EQ(code_of([&] { jobs->get("old"); }), "NOT_FOUND");
  EXPECT_EQ(jobs->get("new").state, JobState::succeeded);
  clock_.advance(std::chrono::hours(24 * 100));
  Gate gate;
  jobs->start("look", JobKind::reading, "running", "digest", [&](JobContext&) { return gate.wait(), "{}"; });
  clock_.advance(std::chrono::hours(24 * 100));
  jobs->recover();
  EXPECT_EQ(jobs->get("pending").state, JobState::failed);
  EXPECT_EQ(jobs->get("running").state, JobState::running);
  gate.open();
  jobs->wait("running", Millis::max());
}

// While it lives no thread can be made: its stack would not fit into the address space.
class NoThreads {
 public:
  NoThreads() {
    ::pthread_attr_init(&before_);
    ::pthread_getattr_default_np(&before_);
    pthread_attr_t huge;
    ::pthread_attr_init(&huge);
    ::pthread_attr_setstacksize(&huge, std::size_t{1} << 60);
    ::pthread_setattr_default_np(&huge);
    ::pthread_attr_destroy(&huge);
  }
  ~NoThreads() {
    ::pthread_setattr_default_np(&before_);
    ::pthread_attr_destroy(&before_);
  }

 private:
  pthread_attr_t before_;
};

TEST_F(JobsTest, WithoutAThreadNothingOfAJobIsLeft) {
  const auto jobs = make();
  for (const JobKind kind : {JobKind::changing, JobKind::reading}) {
    {
      const NoThreads none;
      const Error error =
          error_of([&] { jobs->start("do_it", kind, "one", "digest", [](JobContext&) { return "{}"; }); });
      EXPECT_EQ(error.code(), Code::resource_exhausted) << error.what();
      EXPECT_THAT(error.hint(), HasSubstr("TasksMax"));
    }
    EXPECT_EQ(code_of([&] { jobs->get("one"); }), "NOT_FOUND");
    EXPECT_FALSE(fs::exists(file("one.owner")));
  }
  jobs->start("do_it", JobKind::changing, "one", "digest", [](JobContext&) { return "{}"; });
  EXPECT_EQ(jobs->wait("one", Millis::max()).state, JobState::succeeded);
}

TEST_F(JobsTest, JobsThatReadTakeTurnsAndAreNotTooMany) {
  const auto jobs = make();
  Gate first, other;
  std::atomic<unsigned> at_once{0}, most{0};
  std::vector<std::string> order;
  const auto work = [&](const std::string& id, Gate* gate) {
    return [&, id, gate](JobContext&) -> std::string {
      most = std::max(most.load(), ++at_once);
      order.push_back(id);
      if (gate) gate->wait();
      --at_once;
      return "{}";
    };
  };
  jobs->start("look", JobKind::reading, "r0", "digest", work("r0", &first));
  for (unsigned i = 1; i < Jobs::kMaxReading; ++i) {
    const std::string id = "r" + std::to_string(i);
    jobs->start("look", JobKind::reading, id, "digest", work(id, nullptr));
  }
  std::uint64_t seen = 0;
  while (jobs->wait_change("r1", seen, Millis(60000)).phase != "wait") {
  }
  const Error error =
      error_of([&] { jobs->start("peek", JobKind::reading, "more", "digest", [](JobContext&) { return "{}"; }); });
  EXPECT_EQ(error.code(), Code::busy) << error.what();
  EXPECT_EQ(code_of([&] { jobs->get("more"); }), "NOT_FOUND");
  EXPECT_TRUE(jobs->start("do_it", JobKind::changing, "change", "digest", [](JobContext&) { return "{}"; }) ==
              "change");
  EXPECT_EQ(jobs->wait("change", Millis::max()).state, JobState::succeeded) << "they do not hold up what changes";
  jobs->cancel("r2");
  EXPECT_EQ(jobs->wait("r2", Millis::max()).state, JobState::cancelled)
      << "nor is it their turn before they can be cancelled";
  jobs->start("peek", JobKind::reading, "peek", "digest", [](JobContext&) { return "{}"; });
  EXPECT_EQ(jobs->wait("peek", Millis::max()).state, JobState::succeeded) << "another method has a turn of its own";
  first.open();
  std::vector<std::string> wanted = {"r0"};
  for (unsigned i = 1; i < Jobs::kMaxReading; ++i) {
    const std::string id = "r" + std::to_string(i);
    if (i == 2) continue;
    EXPECT_EQ(jobs->wait(id, Millis::max()).state, JobState::succeeded);
    wanted.push_back(id);
  }
  EXPECT_EQ(most, 1u);
  EXPECT_EQ(order, wanted);
}

TEST_F(JobsTest, WhoOnlyWaitsHoldsUpNobody) {
  const auto jobs = make();
  Gate gate;
  jobs->start("wait_for_it", JobKind::waiting, "long", "d1", [&](JobContext&) { return gate.wait(), "{}"; });
  const std::string other =
      jobs->start("wait_for_it", JobKind::waiting, {}, "d2", [](JobContext&) { return std::string("{}"); });
  EXPECT_EQ(jobs->wait(other, Millis(10000)).state, JobState::succeeded) << "though the first still waits";
  EXPECT_EQ(jobs->get("long").state, JobState::running);
  gate.open();
}

TEST_F(JobsTest, AWaiterOfADeadJobHearsHowItWasRecovered) {
  leave_dead_job("one", {{"made", "{}"}});
  recovery_.what = "put it back";
  const auto jobs = make();
  EXPECT_EQ(jobs->wait("one", Millis::max()).state, JobState::running) << "nobody is about to recover it";
  jobs->recovery_is_due();
  std::promise<void> waiting;
  auto heard = std::async(std::launch::async, [&] {
    waiting.set_value();
    return jobs->wait("one", Millis::max());
  });
  waiting.get_future().wait();
  jobs->recover();
  EXPECT_EQ(heard.get().state, JobState::failed);
}

TEST_F(JobsTest, WhatACrashWhileWritingLeftIsSwept) {
  const auto jobs = make();
  jobs->start("do_it", JobKind::changing, "one", "digest", [](JobContext&) { return "{}"; });
  jobs->wait("one", Millis::max());
  for (const char* name : {".one.json.abc.tmp", ".fresh.tmp"}) write_file_atomic(file(name), "torn", 0600);
  fs::last_write_time(file(".one.json.abc.tmp"), fs::file_time_type::clock::now() - std::chrono::hours(2));
  jobs->recover();
  EXPECT_FALSE(fs::exists(file(".one.json.abc.tmp")));
  EXPECT_TRUE(fs::exists(file(".fresh.tmp"))) << "somebody may be writing it";
  EXPECT_EQ(jobs->get("one").state, JobState::succeeded);
}

TEST_F(JobsTest, AFullDiskForRecordsFailsTheStartAndNothingElse) {
  const auto jobs = make();
  fs::create_directories(settings_.state_dir);
  write_file_atomic(settings_.state_dir / "jobs", "a file where the directory should be", 0600);
  bool ran = false;
  EXPECT_THROW(jobs->start("do_it", JobKind::changing, "x", "d", [&](JobContext&) { return ran = true, "{}"; }), Error);
  EXPECT_FALSE(ran);
}

TEST_F(JobsTest, ShutDownCancelsAndRefusesNewOnes) {
  const auto jobs = make();
  const std::string id = jobs->start("do_it", JobKind::changing, {}, "digest", [](JobContext& job) -> std::string {
    while (true) {
      job.check_cancelled();
      std::this_thread::sleep_for(Millis(1));
    }
  });
  jobs->shut_down();
  EXPECT_EQ(jobs->wait(id, Millis::max()).state, JobState::cancelled);
  EXPECT_EQ(code_of([&] { jobs->start("do_it", JobKind::changing, "late", "d", [](JobContext&) { return "{}"; }); }),
            "UNAVAILABLE");
  EXPECT_EQ(code_of([&] { jobs->get("late"); }), "NOT_FOUND");
}

TEST_F(JobsTest, TwoStartsOfOneIdAtOnceAreOneJob) {
  const auto jobs = make();
  const auto others = make();
  for (int i = 0; i < 20; ++i) {
    const std::string id = "job-" + std::to_string(i);
    std::atomic<int> runs = 0;
    const auto go = [&](Jobs& through) {
      through.start("do_it", JobKind::changing, id, "digest", [&](JobContext&) { return ++runs, "{}"; });
      EXPECT_EQ(through.wait(id, Millis::max()).state, JobState::succeeded);
    };
    std::thread first([&] { go(*jobs); });
    std::thread second([&] { go(*others); });
    first.join();
    second.join();
    EXPECT_EQ(runs, 1);
  }
}

TEST_F(JobsTest, AListHasNoResults) {
  const auto jobs = make();
  jobs->start("do_it", JobKind::changing, "one", "digest", [](JobContext&) { return R"({"password":"secret"})"; });
  jobs->wait("one", Millis::max());
  EXPECT_THAT(write_job(jobs->get("one")), HasSubstr("secret"));
  EXPECT_THAT(write_job(jobs->get("one"), false), testing::Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace guestagent

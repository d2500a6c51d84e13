#include "agent/operations.h"

#include <atomic>
#include <thread>

#include "agent/foreground_job.h"
#include "storage/snapshot_writer.h"
#include "storage/snapshots.h"
#include "tests/support/gate.h"
#include "tests/support/test_job.h"
#include "tests/unit/agent/agent_fixture.h"

namespace guestagent {
namespace {

using test::Gate;
using test::MemoryStore;
using testing::_;
using testing::HasSubstr;
using testing::InSequence;
using testing::Return;
using testing::Throw;

class OperationsTest : public test::AgentFixture {
 protected:
  std::string take(const std::string& id = "snap") {
    return dispatcher.call("get_replication_snapshot", R"({"snapshot_id":")" + id + "\"}");
  }
  static std::string attach_params(const std::string& metadata, const std::string& more = "") {
    return R"({"snapshot":)" + metadata + more + "}";
  }
  // `metadata` with the member at `path` (one or two names) set to `value`.
  static std::string altered(const std::string& metadata, const std::string& object, const char* name,
                             const std::string& value) {
    JsonDocument document = parse_json(metadata, "metadata");
    const JsonDocument fresh = parse_json(value, "value");
    document[object.c_str()][name].CopyFrom(fresh, document.GetAllocator());
    return to_json(document);
  }
  fs::path journal_of(const std::string& job) const { return settings.agent.state_dir / "jobs" / (job + ".journal"); }
};

TEST_F(OperationsTest, ASnapshotAnswersTheMetadataOfTheContract) {
  const std::string text = take();
  const JsonDocument metadata = parse_json(text, "metadata");
  EXPECT_STREQ(metadata["master"]["host"].GetString(), "192.0.2.1");
  EXPECT_EQ(metadata["master"]["port"].GetInt(), 3306);
  EXPECT_STREQ(metadata["dataset"]["datastore"].GetString(), "mysql");
  EXPECT_STREQ(metadata["dataset"]["datastore_version"].GetString(), "mariadb-10.11.19");
  EXPECT_EQ(metadata["dataset"]["dataset_size"].GetInt(), 2) << "GiB, rounded up";
  EXPECT_STREQ(metadata["dataset"]["snapshot_href"].GetString(), "memory://snap/manifest.json");
  EXPECT_EQ(metadata["binlog_position"]["at"].GetInt(), 205);
  EXPECT_EQ(metadata["lease_position"]["at"].GetInt(), 3);
  EXPECT_STREQ(metadata["replication_user"]["name"].GetString(), "repl_x");
  EXPECT_STREQ(metadata["replication_user"]["password"].GetString(), "the-password");
  EXPECT_STREQ(metadata["snapshot"]["id"].GetString(), "snap");
  EXPECT_EQ(metadata["snapshot"]["raw_bytes"].GetUint64(), data.size());
  EXPECT_EQ(metadata["snapshot"]["segments"].GetInt(), 3);
  EXPECT_STREQ(metadata["snapshot"]["compression"].GetString(), "zstd");
  EXPECT_TRUE(metadata["snapshot"]["encryption"].IsNull());
  EXPECT_THAT(metadata["snapshot"]["digest"].GetString(), testing::StartsWith("sha256:"));
  EXPECT_THAT(store.text("snap/manifest.json"), HasSubstr("page_size"));
  EXPECT_THAT(store.text("snap/manifest.json"), testing::Not(HasSubstr("the-password")));
}

// From its claim on, in every phase, and on disk.
TEST_F(OperationsTest, ASnapshotTellsItsPlaceWhileItIsMade) {
  std::optional<std::string> before;
  EXPECT_CALL(datastore, plan_snapshot).WillOnce([&](auto&) {
    before = jobs.get("mine").snapshot_href;
    return Plan{};
  });
  Gate copying, go_on;
  EXPECT_CALL(datastore, open_snapshot).WillOnce([&](auto&, auto&) {
    copying.open();
    go_on.wait();
    return std::make_unique<test::FakeStream>(data);
  });
  call("get_replication_snapshot", R"({"snapshot_id":"snap","job_id":"mine","async":true})");
  copying.wait();
  EXPECT_FALSE(before);
  EXPECT_STREQ(call("get_job", R"({"job_id":"mine"})")["snapshot_href"].GetString(), "memory://snap/manifest.json");
  EXPECT_TRUE(store.has("snap/claim.json"));
  go_on.open();
  jobs.wait("mine", Seconds(60));
  EXPECT_EQ(JobFiles(settings.agent.state_dir).load("mine")->snapshot_href, "memory://snap/manifest.json");
}

TEST_F(OperationsTest, WhatIsStagedOfASnapshotIsDiscarded) {
  const std::string metadata = take();
  const std::string digest = parse_json(metadata, "metadata")["snapshot"]["digest"].GetString();
  EXPECT_CALL(upkeep, discard_staged(testing::Field(&PieceSource::Kind::digest, digest), _)).WillOnce(Return(4711));
  EXPECT_EQ(call("discard_staged_snapshot", attach_params(metadata))["discarded_bytes"].GetInt(), 4711);
}

TEST_F(OperationsTest, AnAttachWithoutACopyDiscardsTheStagedOne) {
  const std::string metadata = take();
  Plan here;
  here.data_is_here = true;
  EXPECT_CALL(datastore, plan_attach).WillOnce(Return(here));
  EXPECT_CALL(upkeep, discard_staged).WillOnce(Throw(Error(Code::internal, "EBUSY")));
  EXPECT_STREQ(call("attach_replication_slave", attach_params(metadata, R"(,"job_id":"a")"))["state"].GetString(),
               "replica");
  EXPECT_THAT(jobs.get("a").warnings, testing::Contains(HasSubstr("EBUSY")));
}

TEST_F(OperationsTest, AFailedCopyLeavesNothingBehind) {
  EXPECT_CALL(datastore, open_snapshot).WillOnce([this](auto&, auto&) {
    return std::make_unique<test::FakeStream>(data,
                                              [] { throw Error(Code::internal, "mariadb-backup: exit status 1"); });
  });
  EXPECT_CALL(upkeep, recover(Undertaking::snapshot, _)).WillOnce(Return("dropped the account"));
  const Error error = failure("get_replication_snapshot", R"({"snapshot_id":"snap"})");
  EXPECT_THAT(error.what(), HasSubstr("exit status 1"));
  EXPECT_TRUE(store.names().empty());
  EXPECT_FALSE(fs::exists(settings.snapshot.spill.dir) && !fs::is_empty(settings.snapshot.spill.dir));
}

TEST_F(OperationsTest, WhatTheDatastoreLeavesDoesNotKeepTheObjectsNorTheNextCall) {
  EXPECT_CALL(datastore, open_snapshot).WillOnce([this](auto&, auto& job) {
    job.journal().record("source.account");
    return std::make_unique<test::FakeStream>(data, [] { throw Error(Code::internal, "the tool died"); });
  });
  EXPECT_CALL(upkeep, recover)
      .WillOnce(Throw(LeftBehind("ended the lease", Error(Code::internal, "dropping the account: no right"))))
      .WillOnce(Throw(LeftBehind("", Error(Code::internal, "dropping the account: still no right"))))
      .WillOnce(Return("dropped the account"));
  const Error error = failure("get_replication_snapshot", R"({"snapshot_id":"snap","job_id":"first"})");
  EXPECT_THAT(error.what(), testing::AllOf(HasSubstr("the tool died"), HasSubstr("dropping the account: no right")));
  EXPECT_TRUE(store.names().empty());
  EXPECT_TRUE(fs::exists(journal_of("first")));
  for (const bool left : {true, false}) {
    const std::string id = left ? "second" : "third";
    EXPECT_STREQ(call("detach_replication_slave", R"({"job_id":")" + id + "\"}")["state"].GetString(), "standalone");
    EXPECT_EQ(fs::exists(journal_of("first")), left);
    EXPECT_EQ(jobs.get(id).warnings.size(), left ? 1U : 0U);
  }
}

TEST_F(OperationsTest, AFailedManifestLeavesNothingBehind) {
  store.before = [](const std::string& verb, const std::string& name) {
    if (verb == "put" && name.ends_with("manifest.json")) throw StoreError(Code::unavailable, "503", "", false);
  };
  EXPECT_CALL(upkeep, recover).Times(1);
  EXPECT_EQ(failure("get_replication_snapshot", R"({"snapshot_id":"snap"})").code(), Code::unavailable);
  EXPECT_TRUE(store.names().empty());
}

TEST_F(OperationsTest, ASnapshotThatExistsIsNotTouchedByASecondOfItsId) {
  const std::string first = take();
  const std::vector<std::string> names = store.names();
  EXPECT_EQ(failure("get_replication_snapshot", R"({"snapshot_id":"snap"})").code(), Code::already_exists);
  EXPECT_EQ(store.names(), names);
  EXPECT_TRUE(
      call("verify_replication_snapshot", R"({"snapshot_href":"memory://snap/manifest.json"})")["ok"].GetBool());
}

TEST_F(OperationsTest, AFailedCheckTouchesNothing) {
  Plan plan;
  plan.checks = {{"binary log", Check::Result::failed, "it is off", "turn it on", Code::failed_precondition}};
  EXPECT_CALL(datastore, plan_snapshot).WillOnce(Return(plan));
  EXPECT_CALL(datastore, open_snapshot).Times(0);
  EXPECT_CALL(upkeep, recover).Times(0);
  EXPECT_EQ(failure("get_replication_snapshot").code(), Code::failed_precondition);
  EXPECT_TRUE(store.names().empty());
}

TEST_F(OperationsTest, WhatTheStoreDoesNotLetGoIsNamedAndRemovedLater) {
  bool away = false;
  store.before = [&](const std::string& verb, const std::string&) {
    if (away) throw StoreError(Code::unavailable, verb + ": the store is away", "", false);
  };
  EXPECT_CALL(datastore, open_snapshot).WillOnce([&](auto&, auto&) {
    return std::make_unique<test::FakeStream>(data, [&] {
      // The claim and the segments that are whole: the transfers have their own pace.
      while (store.names().size() < 1 + data.size() / settings.snapshot.segment_bytes)
        std::this_thread::sleep_for(Millis(1));
      away = true;
      throw Error(Code::internal, "the tool failed");
    });
  });
  const Error error = failure("get_replication_snapshot", R"({"snapshot_id":"snap","job_id":"mine"})");
  EXPECT_THAT(error.what(),
              testing::AllOf(HasSubstr("the tool failed"), HasSubstr("snap"), HasSubstr("the store is away")));
  EXPECT_FALSE(store.names().empty());
  EXPECT_TRUE(fs::exists(journal_of("mine")));

  EXPECT_NO_THROW(call("detach_replication_slave")) << "a store that is away does not stop what needs none";
  EXPECT_FALSE(store.names().empty());
  away = false;
  jobs.recover();
  EXPECT_TRUE(store.names().empty());
  EXPECT_FALSE(fs::exists(journal_of("mine")));
}

TEST_F(OperationsTest, AttachGoesStepByStep) {
  const std::string metadata = take();
  auto installation = std::make_unique<testing::StrictMock<test::MockInstallation>>();
  {
    InSequence in_this_order;
    EXPECT_CALL(datastore, plan_attach(_, R"({"page_size":16384})"));
    EXPECT_CALL(upkeep, make_staging);
    EXPECT_CALL(datastore, receive(_, dir.path() / "staging", _));
    EXPECT_CALL(datastore, install(_, dir.path() / "staging", _));
    EXPECT_CALL(datastore, start_replicating);
    EXPECT_CALL(*installation, accept);
    EXPECT_CALL(*installation, dropped);
  }
  ON_CALL(datastore, install).WillByDefault([&](auto& request, auto&, auto&) {
    EXPECT_TRUE(request.read_only);
    EXPECT_FALSE(request.overwrite);
    EXPECT_EQ(request.own.text(), R"({"number":4})");
    EXPECT_EQ(request.catch_up_timeout, Millis(1500));
    EXPECT_EQ(request.snapshot.replication_password.reveal(), "the-password");
    return std::move(installation);
  });
  const JsonDocument result = call("attach_replication_slave",
                                   attach_params(metadata, R"(,"catch_up_timeout_s":1.5,"slave_config":{"number":4})"));
  EXPECT_STREQ(result["state"].GetString(), "replica");
  EXPECT_EQ(result["number"].GetInt(), 4);
  EXPECT_TRUE(result["read_only"].GetBool());
  EXPECT_STREQ(result["status"]["verdict"].GetString(), "healthy");
  EXPECT_EQ(received, data);
}

TEST_F(OperationsTest, WhatIsTheEnginesOwnIsReadByItBeforeAnythingBegins) {
  const std::string metadata = take();
  const Error number = failure("attach_replication_slave", attach_params(metadata, R"(,"slave_config":{"number":10})"));
  EXPECT_EQ(number.code(), Code::invalid_argument);
  EXPECT_STREQ(number.what(), "params.slave_config.number: must be a whole number from 1 to 9");
  const Error unknown = failure("attach_replication_slave", attach_params(metadata, R"(,"slave_config":{"server":1})"));
  EXPECT_EQ(unknown.hint(), "known are: read_only, number, overwrite, keep_previous_data");
  const Error place =
      failure("attach_replication_slave", attach_params(altered(metadata, "lease_position", "at", "\"here\"")));
  EXPECT_EQ(place.code(), Code::invalid_argument);
  EXPECT_THAT(place.what(), HasSubstr("params.snapshot.lease_position.at: must be"));
  EXPECT_TRUE(jobs.list().size() == 1U) << "of take()";
}

TEST_F(OperationsTest, ADryRunOfAStageRefusesASnapshotOfAnotherDatastore) {
  const std::string theirs = altered(take(), "dataset", "datastore", "\"postgres\"");
  const std::string params = R"({"snapshot":)" + theirs + "}";
  EXPECT_EQ(failure("stage_replication_snapshot", params).code(), Code::failed_precondition);
  const JsonDocument dry =
      call("stage_replication_snapshot", params.substr(0, params.size() - 1) + R"(,"dry_run":true})");
  EXPECT_FALSE(dry["ok"].GetBool());
  EXPECT_THAT(to_json(dry), HasSubstr("it is of datastore postgres, this agent serves mysql"));
}

TEST_F(OperationsTest, RestoreLooksForSpaceFirst) {
  take();
  test::TestJob job;
  EXPECT_CALL(datastore, receive).Times(0);
  const Error full = test::error_of([&] { operations.restore("memory://snap/manifest.json", "/proc", job); });
  EXPECT_EQ(full.code(), Code::resource_exhausted) << full.what();
  EXPECT_CALL(datastore, receive(_, dir.path() / "to", _)).Times(1);
  operations.restore("memory://snap/manifest.json", dir.path() / "to", job);
}

TEST_F(OperationsTest, AFailedAttachIsUndone) {
  const std::string metadata = take();
  auto installation = std::make_unique<testing::NiceMock<test::MockInstallation>>();
  EXPECT_CALL(*installation, accept).Times(0);
  EXPECT_CALL(*installation, dropped).Times(1);
  EXPECT_CALL(datastore, install).WillOnce([&](auto&, auto&, JobContext& job) {
    job.journal().record("install.begin");
    return std::move(installation);
  });
  EXPECT_CALL(datastore, start_replicating)
      .WillOnce(Throw(Error(Code::deadline_exceeded, "the IO thread stays at Connecting")));
  EXPECT_CALL(upkeep, recover(Undertaking::attach, _)).WillOnce(Return("put the old data back"));
  EXPECT_EQ(failure("attach_replication_slave", attach_params(metadata)).code(), Code::deadline_exceeded);
}

// By the names of methods, as the journals of older agents hold them too.
TEST_F(OperationsTest, TheDatastoreIsToldWhatAJobUndertook) {
  const std::pair<const char*, Undertaking> all[] = {
      {"get_replication_snapshot", Undertaking::snapshot}, {"attach_replication_slave", Undertaking::attach},
      {"stage_replication_snapshot", Undertaking::stage},  {"discard_staged_snapshot", Undertaking::stage},
      {"detach_replication_slave", Undertaking::detach},   {"cleanup_replication_source", Undertaking::release},
      {"delete_replication_snapshot", Undertaking::other}, {"checksum_tables", Undertaking::other},
      {"set_read_only", Undertaking::read_only},           {"open_replication_source", Undertaking::open_source},
      {"demote_replication_source", Undertaking::demote},  {"wait_for_position", Undertaking::other},
      {"of_another_version", Undertaking::other}};
  for (const auto& [method, undertaking] : all) {
    EXPECT_CALL(upkeep, recover(undertaking, _)).WillOnce(Return(method));
    ForegroundJob job;
    EXPECT_EQ(operations.recover(method, job).what, method);
    testing::Mock::VerifyAndClearExpectations(&upkeep);
  }
}

TEST_F(OperationsTest, ASourceWithoutDataIsAttachedWhereTheDataIsAndFetchesNothing) {
  EXPECT_CALL(roles, open_source).WillOnce(Return(test::source_facts()));
  const JsonDocument source = call("open_replication_source", "{}");
  EXPECT_FALSE(source.HasMember("dataset"));
  EXPECT_FALSE(source.HasMember("snapshot"));
  EXPECT_CALL(upkeep, make_staging).Times(0);
  EXPECT_CALL(datastore, install).Times(0);
  EXPECT_CALL(datastore, plan_attach).WillOnce(Return(Plan{{}, {}, true}));
  EXPECT_CALL(datastore, start_replicating).WillOnce([](const AttachRequest& request, auto&) {
    EXPECT_TRUE(request.data_is_here);
    EXPECT_FALSE(request.snapshot.has_data);
    return AttachOutcome{{}, true, true};
  });
  EXPECT_STREQ(call("attach_replication_slave", attach_params(to_json(source)))["state"].GetString(), "replica");
  EXPECT_EQ(failure("stage_replication_snapshot", attach_params(to_json(source))).code(), Code::invalid_argument);

  Plan refused;
  refused.checks.push_back({"user data", Check::Result::failed, "it has parted", "", Code::failed_precondition});
  EXPECT_CALL(datastore, plan_attach).WillOnce(Return(refused));
  EXPECT_EQ(failure("attach_replication_slave", attach_params(to_json(source))).code(), Code::failed_precondition);
}

TEST_F(OperationsTest, RolesAreAskedAndAnswered) {
  EXPECT_CALL(roles, set_read_only).WillOnce([](const ReadOnlyRequest& request, auto&) {
    EXPECT_TRUE(request.read_only);
    EXPECT_TRUE(request.force);
    EXPECT_EQ(request.timeout, Millis(1500));
    return ReadOnlyOutcome{true, {"'root'@'%'"}, 3};
  });
  EXPECT_EQ(to_json(call("set_read_only", R"({"read_only":true,"timeout_s":1.5,"force":true})")),
            R"({"read_only":true,"may_still_write":["'root'@'%'"],"ended_sessions":3})");
  EXPECT_EQ(failure("set_read_only", "{}").code(), Code::invalid_argument);

  ReplicationPlace place;
  place.executed = OwnJson(R"({"at":5})");
  EXPECT_CALL(roles, place).WillRepeatedly(Return(place));
  const JsonDocument at = call("get_replication_position", "{}");
  EXPECT_EQ(at["executed"]["at"].GetInt(), 5);
  EXPECT_TRUE(at["received"].IsNull());
  EXPECT_CALL(roles, wait_for(place.executed, Millis(2000), _));
  EXPECT_TRUE(call("wait_for_position", R"({"position":{"at":5},"timeout_s":2})")["reached"].GetBool());

  EXPECT_CALL(roles, demote_source(false, _)).WillOnce(Return(std::vector<std::string>{"repl_a"}));
  EXPECT_EQ(to_json(call("demote_replication_source", "{}")), R"({"dropped_accounts":["repl_a"]})");
  // What a crash left half done is told as what it is: done.
  ForegroundJob job;
  EXPECT_CALL(upkeep, recover(Undertaking::demote, _)).WillOnce([](auto, JobContext& recovered) {
    recovered.journal().record(kFinishedStep, R"({"users":["repl_a"]})");
    return "finished";
  });
  EXPECT_EQ(operations.recover("demote_replication_source", job).result, R"({"dropped_accounts":["repl_a"]})");
}

TEST_F(OperationsTest, OldDataThatCannotBeRemovedDoesNotUndoTheAttach) {
  const std::string metadata = take();
  auto installation = std::make_unique<testing::NiceMock<test::MockInstallation>>();
  EXPECT_CALL(*installation, accept).WillOnce(Throw(Error(Code::internal, "EBUSY")));
  EXPECT_CALL(datastore, install).WillOnce([&](auto&, auto&, auto&) { return std::move(installation); });
  EXPECT_CALL(upkeep, recover).WillOnce([](auto, JobContext& job) {
    EXPECT_NE(job.journal().find("result"), nullptr) << "so that it finishes and does not undo";
    return "removed the old data";
  });
  EXPECT_STREQ(call("attach_replication_slave", attach_params(metadata))["state"].GetString(), "replica");
}

TEST_F(OperationsTest, AttachRefusesMetadataThatDoNotFitTheManifest) {
  const std::string metadata = take();
  take("other");
  EXPECT_CALL(upkeep, make_staging).Times(0);
  EXPECT_CALL(datastore, install).Times(0);
  const struct {
    const char *object, *name;
    std::string value;
    Code code;
  } kAltered[] = {
      {"snapshot", "id", "\"other\"", Code::failed_precondition},
      {"snapshot", "digest", "\"sha256:00\"", Code::data_loss},
      {"snapshot", "segments", "2", Code::data_loss},
      {"snapshot", "raw_bytes", "1", Code::data_loss},
      {"snapshot", "stored_bytes", "1", Code::data_loss},
      {"snapshot", "encryption", "\"k1\"", Code::data_loss},
      {"snapshot", "compression", "\"lz4\"", Code::data_loss},
      {"snapshot", "format", "\"tar\"", Code::data_loss},
      {"snapshot", "tool", "\"xtrabackup 8.0\"", Code::data_loss},
      {"snapshot", "created_at", "\"2020-01-01T00:00:00Z\"", Code::data_loss},
      {"binlog_position", "at", "999", Code::data_loss},
      {"dataset", "snapshot_href", "\"memory://other/manifest.json\"", Code::failed_precondition},
      {"dataset", "snapshot_href", "\"memory://none/manifest.json\"", Code::not_found},
      {"dataset", "snapshot_href", "\"https://evil.example/snap/manifest.json\"", Code::permission_denied},
      {"dataset", "datastore", "\"postgres\"", Code::failed_precondition},
  };
  for (const auto& change : kAltered) {
    const std::string wrong = altered(metadata, change.object, change.name, change.value);
    EXPECT_EQ(failure("attach_replication_slave", attach_params(wrong)).code(), change.code)
        << change.name << change.value;
    const JsonDocument dry = call("attach_replication_slave", attach_params(wrong, R"(,"dry_run":true)"));
    EXPECT_FALSE(dry["ok"].GetBool()) << change.name;
  }
}

TEST_F(OperationsTest, ADamagedSegmentReachesNobody) {
  const std::string metadata = take();
  std::string segment = store.text("snap/segment-00000002");
  segment[segment.size() / 2] ^= 1;
  store.set("snap/segment-00000002", segment);
  EXPECT_CALL(datastore, install).Times(0);
  const Error error = failure("attach_replication_slave", attach_params(metadata));
  EXPECT_EQ(error.code(), Code::data_loss);
  EXPECT_THAT(error.what(), HasSubstr("segment-00000002"));
}

TEST_F(OperationsTest, DetachAnswersThePosition) {
  EXPECT_CALL(datastore, stop_replicating).WillOnce([](const DetachRequest& request, JobContext&) {
    EXPECT_TRUE(request.force);
    EXPECT_EQ(request.drain_timeout, Millis(60000));
    return DetachOutcome{OwnJson(R"({"at":9})"), {"repl_a", "repl_b"}};
  });
  const JsonDocument result = call("detach_replication_slave", R"({"force":true,"drain_timeout_s":60})");
  EXPECT_STREQ(result["state"].GetString(), "standalone");
  EXPECT_EQ(result["last_applied"]["at"].GetInt(), 9);
  EXPECT_EQ(to_json(result["dropped_accounts"]), R"(["repl_a","repl_b"])");
  EXPECT_TRUE(result["status"].IsObject());
}

TEST_F(OperationsTest, DeleteOfWhatIsGoneIsASuccess) {
  take();
  const std::string params = R"({"snapshot_href":"memory://snap/manifest.json"})";
  const JsonDocument first = call("delete_replication_snapshot", params);
  EXPECT_TRUE(first["deleted"].GetBool());
  EXPECT_EQ(first["objects"].GetInt(), 6) << "three segments, an index, the manifest, the claim";
  EXPECT_STREQ(first["claimed_by"]["host"].GetString(), "192.0.2.1");
  EXPECT_THAT(first["claimed_by"]["since"].GetString(), testing::StartsWith("20"));
  EXPECT_TRUE(store.names().empty());
  const JsonDocument again = call("delete_replication_snapshot", params);
  EXPECT_EQ(again["objects"].GetInt(), 0);
  EXPECT_FALSE(again.HasMember("claimed_by"));
}

// The answer that says how a job on a store that is away has failed; what it has stored is there, and its journal.
class DeadJobTest : public OperationsTest {
 protected:
  void SetUp() override {
    EXPECT_CALL(datastore, open_snapshot).WillOnce([&](auto&, auto&) {
      return std::make_unique<test::FakeStream>(data, [&] {
        while (!store.has("snap/segment-00000001")) std::this_thread::sleep_for(Millis(1));
        store.before = [](const std::string& verb, const std::string&) {
          throw StoreError(Code::unavailable, verb + ": the store is away", "", false);
        };
        throw Error(Code::internal, "the tool failed");
      });
    });
    failure("get_replication_snapshot", R"({"snapshot_id":"snap","job_id":"mine"})");
    ASSERT_TRUE(fs::exists(journal_of("mine")));
    ASSERT_TRUE(store.has("snap/segment-00000001"));
    store.before = nullptr;
  }
  // As another host's agent.
  void take_elsewhere(MemoryStore& on) {
    test::TestJob job;
    SnapshotWriter writer(on, "snap", settings.snapshot, throttle, job, "192.0.2.2");
    test::FakeStream stream(data);
    writer.write(stream, {});
    writer.finish({"tool", "xbstream", "{}", {}});
  }
};

TEST_F(DeadJobTest, ItsRemainsAreRemovedLater) {
  jobs.recover();
  EXPECT_TRUE(store.names().empty());
  EXPECT_FALSE(fs::exists(journal_of("mine")));
}

TEST_F(DeadJobTest, AnothersSnapshotOfThatIdStays) {
  delete_snapshot(store, "snap", {});
  take_elsewhere(store);
  const auto before = store.objects();
  jobs.recover();
  EXPECT_EQ(store.objects(), before);
  EXPECT_FALSE(fs::exists(journal_of("mine"))) << "there is nothing of its own to come back for";
  const JsonDocument record = call("get_job", R"({"job_id":"mine"})");
  EXPECT_THAT(to_json(record["warnings"]),
              HasSubstr("left snapshot snap on the store as it is: it is of 192.0.2.2 since 20"));
}

TEST_F(DeadJobTest, OnAnotherStoreNothingIsRemovedAndItSaysWhereTheRestIs) {
  const auto before = store.objects();
  MemoryStore other;
  other.root = "elsewhere://";
  take_elsewhere(other);
  const auto others = other.objects();
  Operations there{settings, other, datastore, upkeep, roles, throttle, system_clock()};
  std::string left;
  Jobs with_other{settings.agent,
                  [&](const std::string& method, JobContext& job) {
                    Jobs::Recovery recovery = there.recover(method, job);
                    left = recovery.left;
                    return recovery;
                  },
                  system_clock()};
  with_other.recover();
  EXPECT_EQ(other.objects(), others);
  EXPECT_EQ(store.objects(), before);
  EXPECT_THAT(left, testing::AllOf(HasSubstr("stored objects of snapshot snap are left"), HasSubstr("another store"),
                                   HasSubstr("memory://snap/manifest.json")));
  EXPECT_TRUE(fs::exists(journal_of("mine")));
  jobs.recover();
  EXPECT_TRUE(store.names().empty());
  EXPECT_FALSE(fs::exists(journal_of("mine")));
}

TEST_F(OperationsTest, ADeletionThatDiedLeavesANewerSnapshotAlone) {
  take();
  std::atomic<int> requests = 0;
  store.before = [&](const std::string& verb, const std::string&) {
    if (verb == "remove" || requests > 0) ++requests;
    if (requests > 2) throw StoreError(Code::unavailable, "the store is away", "", false);
  };
  failure("delete_replication_snapshot", R"({"snapshot_href":"memory://snap/manifest.json","job_id":"mine"})");
  ASSERT_TRUE(fs::exists(journal_of("mine")));
  store.before = nullptr;
  delete_snapshot(store, "snap", {});
  test::TestJob job;
  SnapshotWriter writer(store, "snap", settings.snapshot, throttle, job, "192.0.2.2");
  test::FakeStream stream(data);
  writer.write(stream, {});
  writer.finish({"tool", "xbstream", "{}", {}});
  const auto before = store.objects();
  jobs.recover();
  EXPECT_EQ(store.objects(), before);
  EXPECT_FALSE(fs::exists(journal_of("mine")));
}

TEST_F(OperationsTest, TheClaimComesBeforeAnythingIsDoneToTheServer) {
  EXPECT_CALL(datastore, open_snapshot).WillOnce([&](auto&, auto&) {
    EXPECT_TRUE(store.has("snap/claim.json"));
    return std::make_unique<test::FakeStream>(data);
  });
  take();
}

TEST_F(OperationsTest, ADryRunTellsWhoseTheIdIs) {
  take();
  const JsonDocument dry = call("get_replication_snapshot", R"({"snapshot_id":"snap","dry_run":true})");
  EXPECT_FALSE(dry["ok"].GetBool());
  EXPECT_THAT(to_json(dry), HasSubstr("a complete snapshot of 192.0.2.1 since 20"));
  EXPECT_THAT(
      to_json(call("delete_replication_snapshot", R"({"snapshot_href":"memory://snap/manifest.json","dry_run":true})")),
      HasSubstr("of 192.0.2.1 since 20"));
}

TEST_F(OperationsTest, VerifyNamesTheKey) {
  take();
  const JsonDocument result = call("verify_replication_snapshot", R"({"snapshot_href":"memory://snap/manifest.json"})");
  ASSERT_TRUE(result.HasMember("encryption"));
  EXPECT_TRUE(result["encryption"].IsNull());
}

TEST_F(OperationsTest, DeleteStaysInItsStore) {
  EXPECT_EQ(
      failure("delete_replication_snapshot", R"({"snapshot_href":"https://elsewhere/snap/manifest.json"})").code(),
      Code::permission_denied);
  EXPECT_EQ(failure("delete_replication_snapshot", R"({"snapshot_href":"memory://snap/segment-00000001"})").code(),
            Code::invalid_argument);
}

TEST_F(OperationsTest, ListsWhatIsThere) {
  take();
  store.set("half/segment-00000001", "x");
  const JsonDocument list = call("list_replication_snapshots");
  ASSERT_EQ(list["snapshots"].Size(), 2u);
  EXPECT_STREQ(list["snapshots"][0]["id"].GetString(), "half");
  EXPECT_FALSE(list["snapshots"][0]["complete"].GetBool());
  EXPECT_TRUE(list["snapshots"][1]["complete"].GetBool());
  EXPECT_STREQ(list["snapshots"][1]["href"].GetString(), "memory://snap/manifest.json");
}

TEST_F(OperationsTest, ChecksumsNameWhereTheyWereRead) {
  EXPECT_CALL(upkeep, checksum_tables(testing::ElementsAre("db.t"), std::optional<std::uint64_t>(10), _, _, _))
      .WillOnce([](auto&, auto, auto& at, OwnJson& read_at, auto&) {
        EXPECT_EQ(at->text(), R"({"at":5})");
        read_at = OwnJson(R"({"at":7})");
        return std::vector<TableChecksum>{{"db.t", 3, "abc"}};
      });
  const JsonDocument sums = call("checksum_tables", R"({"tables":["db.t"],"sample":10,"at":{"at":5,"more":null}})");
  EXPECT_EQ(sums["at"]["at"].GetInt(), 7);
  EXPECT_STREQ(sums["tables"][0]["digest"].GetString(), "abc");
}

TEST_F(OperationsTest, CancelOfASnapshotRemovesIt) {
  Gate copying;
  EXPECT_CALL(datastore, open_snapshot).WillOnce([&](auto&, JobContext& job) {
    return std::make_unique<test::FakeStream>(data, [&] {
      copying.open();
      while (true) {
        job.check_cancelled();
        std::this_thread::sleep_for(Millis(1));
      }
    });
  });
  call("get_replication_snapshot", R"({"async":true,"job_id":"mine"})");
  copying.wait();
  call("cancel_job", R"({"job_id":"mine"})");
  EXPECT_STREQ(call("wait_job", R"({"job_id":"mine","timeout_s":60})")["state"].GetString(), "cancelled");
  EXPECT_TRUE(store.names().empty());
}

}  // namespace
}  // namespace guestagent

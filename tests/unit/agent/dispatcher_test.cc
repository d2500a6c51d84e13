#include "agent/dispatcher.h"

#include "tests/unit/agent/agent_fixture.h"

namespace guestagent {
namespace {

using testing::HasSubstr;
using testing::Return;

class DispatcherTest : public test::AgentFixture {
 protected:
  static int number(const JsonDocument& response) { return response["error"]["code"].GetInt(); }
  static std::string code(const JsonDocument& response) { return response["error"]["data"]["code"].GetString(); }
};

TEST_F(DispatcherTest, AnswersWithTheIdOfTheRequest) {
  for (const std::string id : {"7", "\"seven\"", "1.5", "null", "-1"}) {
    const JsonDocument answer = ask(R"({"jsonrpc":"2.0","method":"list_jobs","id":)" + id + "}");
    EXPECT_EQ(to_json(answer["id"]), id);
    EXPECT_STREQ(answer["jsonrpc"].GetString(), "2.0");
    EXPECT_TRUE(answer.HasMember("result"));
    EXPECT_FALSE(answer.HasMember("error"));
  }
}

TEST_F(DispatcherTest, AnIdThatWouldComeBackAsAnotherIsRefused) {
  for (const std::string id : {"18446744073709551615", "-9223372036854775808"}) {
    EXPECT_EQ(to_json(ask(R"({"jsonrpc":"2.0","method":"list_jobs","id":)" + id + "}")["id"]), id);
  }
  for (const std::string id : {"12345678901234566890123", "1e40", "-1e300"}) {
    EXPECT_EQ(code(ask(R"({"jsonrpc":"2.0","method":"list_jobs","id":)" + id + "}")), "INVALID_ARGUMENT") << id;
  }
}

TEST_F(DispatcherTest, WhatIsNoJsonIsAParseError) {
  for (const std::string text :
       {"", "{", "nonsense", "{\"a\":1,}", "\xff\xfe", "{\"jsonrpc\":\"2.0\"} x", "{\"a\":1,\"a\":2}", "[1,2"}) {
    const JsonDocument answer = ask(text);
    EXPECT_EQ(number(answer), -32700) << text;
    EXPECT_TRUE(answer["id"].IsNull());
  }
  EXPECT_EQ(number(ask(std::string(100000, '['))), -32700);
  EXPECT_EQ(number(ask(std::string("{\"jsonrpc\":\"2.0\"\0}", 18))), -32700);
}

TEST_F(DispatcherTest, WhatIsNoRequestIsInvalid) {
  for (const std::string text :
       {"5", "\"x\"", "null", "{}", R"({"jsonrpc":"1.0","method":"get_info","id":1})", R"({"jsonrpc":"2.0","id":1})",
        R"({"jsonrpc":"2.0","id":1,"method":5})", R"({"jsonrpc":"2.0","id":{},"method":"get_info"})",
        R"({"jsonrpc":2.0,"id":1,"method":"get_info"})", "[]"}) {
    EXPECT_EQ(number(ask(text)), -32600) << text;
  }
}

TEST_F(DispatcherTest, AMethodThatDoesNotExistIsNamedWithThoseThatDo) {
  const JsonDocument answer = ask(R"({"jsonrpc":"2.0","id":1,"method":"get_replication_snapshots"})");
  EXPECT_EQ(number(answer), -32601);
  EXPECT_EQ(code(answer), "UNIMPLEMENTED");
  EXPECT_THAT(answer["error"]["message"].GetString(), HasSubstr("get_replication_snapshots"));
  EXPECT_THAT(answer["error"]["data"]["hint"].GetString(), HasSubstr("did you mean get_replication_snapshot?"));
  for (const std::string_view method : dispatcher.methods()) {
    EXPECT_THAT(answer["error"]["data"]["hint"].GetString(), HasSubstr(std::string(method)));
  }
}

TEST_F(DispatcherTest, ANotificationIsDoneAndNotAnswered) {
  EXPECT_CALL(upkeep, status).Times(1);
  EXPECT_EQ(dispatcher.handle(R"({"jsonrpc":"2.0","method":"get_replication_status"})"), "");
  EXPECT_EQ(dispatcher.handle(R"({"jsonrpc":"2.0","method":"no_such_method"})"), "");
}

TEST_F(DispatcherTest, ABatchIsAnsweredInOrder) {
  const JsonDocument answer =
      ask(R"([{"jsonrpc":"2.0","id":1,"method":"list_jobs"},{"jsonrpc":"2.0","method":"list_jobs"},5,
                                      {"jsonrpc":"2.0","id":2,"method":"nothing"}])");
  ASSERT_TRUE(answer.IsArray());
  ASSERT_EQ(answer.Size(), 3u);
  EXPECT_EQ(answer[0]["id"].GetInt(), 1);
  EXPECT_EQ(answer[1]["error"]["code"].GetInt(), -32600);
  EXPECT_EQ(answer[2]["error"]["code"].GetInt(), -32601);
  EXPECT_EQ(dispatcher.handle(R"([{"jsonrpc":"2.0","method":"list_jobs"}])"), "");

  std::string many = "[5";
  for (unsigned i = 0; i < kMaxBatch; ++i) many += ",5";
  EXPECT_EQ(number(ask(many + "]")), -32600);
}

TEST_F(DispatcherTest, ParamsAreStrict) {
  const struct {
    std::string method, params, path;
  } kBad[] = {
      {"get_info", R"({"x":1})", "params.x"},
      {"list_jobs", R"({"async":true})", "params.async"},
      {"get_replication_snapshot", R"({"snapshot":"x"})", "params.snapshot"},
      {"get_replication_snapshot", R"({"snapshot_id":5})", "params.snapshot_id"},
      {"get_replication_snapshot", R"({"snapshot_id":"../x"})", "params.snapshot_id"},
      {"get_replication_snapshot", R"({"compression":"rar"})", "params.compression"},
      {"get_replication_snapshot", R"({"async":1})", "params.async"},
      {"get_replication_snapshot", R"({"job_id":"a/b"})", "params.job_id"},
      {"get_replication_snapshot", R"({"dry_run":"yes"})", "params.dry_run"},
      {"attach_replication_slave", "{}", "params.snapshot"},
      {"attach_replication_slave", R"({"snapshot":5})", "params.snapshot"},
      {"attach_replication_slave", R"({"snapshot":{}})", "params.snapshot."},
      {"detach_replication_slave", R"({"force":"yes"})", "params.force"},
      {"detach_replication_slave", R"({"drain_timeout_s":-1})", "params.drain_timeout_s"},
      {"detach_replication_slave", R"({"drain_timeout_s":1e300})", "params.drain_timeout_s"},
      {"delete_replication_snapshot", "{}", "params.snapshot_href"},
      {"delete_replication_snapshot", R"({"snapshot_href":""})", "params.snapshot_href"},
      {"cleanup_replication_source", R"({"user":"x"})", "params.user"},
      {"checksum_tables", R"({"tables":"x"})", "params.tables"},
      {"checksum_tables", R"({"sample":0})", "params.sample"},
      {"list_jobs", R"({"limit":0})", "params.limit"},
      {"list_jobs", R"({"before":5})", "params.before"},
      {"get_job", "{}", "params.job_id"},
      {"wait_job", R"({"job_id":"x","timeout_s":"1"})", "params.timeout_s"},
  };
  for (const auto& bad : kBad) {
    const Error error = failure(bad.method, bad.params);
    EXPECT_EQ(error.code(), Code::invalid_argument) << bad.method << bad.params;
    EXPECT_THAT(error.what(), HasSubstr(bad.path)) << bad.method << bad.params;
  }
  EXPECT_EQ(failure("get_info", "[]").code(), Code::invalid_argument);
  EXPECT_EQ(failure("get_info", "5").code(), Code::invalid_argument);
  EXPECT_TRUE(jobs.list().empty()) << "nothing of it became a job";
}

TEST_F(DispatcherTest, AMistypedKeyIsRecognised) {
  EXPECT_THAT(failure("get_replication_snapshot", R"({"snapshotid":"x"})").hint(), HasSubstr("snapshot_id"));
}

TEST_F(DispatcherTest, GetInfoListsWhatThereIs) {
  ServerDescription server;
  server.reachable = true;
  server.datastore_version = "mariadb-10.11.19";
  server.own = OwnJson(R"({"server_id":7})");
  server.tools = {{"mariadb-backup", "10.11.19"}};
  EXPECT_CALL(datastore, describe).WillOnce(Return(server));
  const JsonDocument info = call("get_info");
  EXPECT_EQ(info["protocol_version"].GetInt(), 1);
  EXPECT_STREQ(info["datastore_version"].GetString(), "mariadb-10.11.19");
  EXPECT_EQ(info["host"]["server_id"].GetInt(), 7);
  EXPECT_EQ(info["methods"].Size(), dispatcher.methods().size());
  for (const JsonValue& method : info["methods"].GetArray()) {
    EXPECT_NE(test::code_of([&] { dispatcher.call(method.GetString(), R"({"no such key":1})"); }), "UNIMPLEMENTED");
  }
}

TEST_F(DispatcherTest, KnowsWhichMethodsAreJobs) {
  for (const std::string_view method : dispatcher.methods()) {
    const Error error = failure(std::string(method), R"({"async":5})");
    const bool is_job = std::string(error.what()).find("unknown key") == std::string::npos;
    EXPECT_EQ(runs_as_job(method), is_job) << method;
  }
}

TEST_F(DispatcherTest, AsyncAnswersAtOnceAndWaitJobTheRecord) {
  const JsonDocument started =
      call("get_replication_snapshot", R"({"async":true,"job_id":"mine","snapshot_id":"snap"})");
  EXPECT_STREQ(started["job_id"].GetString(), "mine");
  const JsonDocument record = call("wait_job", R"({"job_id":"mine","timeout_s":60})");
  EXPECT_STREQ(record["state"].GetString(), "succeeded");
  EXPECT_STREQ(record["result"]["snapshot"]["id"].GetString(), "snap");
  EXPECT_FALSE(record.HasMember("error"));
  EXPECT_STREQ(call("get_job", R"({"job_id":"mine"})")["method"].GetString(), "get_replication_snapshot");
  EXPECT_EQ(call("list_jobs")["jobs"].Size(), 1u);
  EXPECT_EQ(failure("cancel_job", R"({"job_id":"mine"})").code(), Code::failed_precondition);
  EXPECT_EQ(failure("get_job", R"({"job_id":"other"})").code(), Code::not_found);
}

TEST_F(DispatcherTest, ListsJobsByThePage) {
  for (const std::string id : {"a", "b", "c"}) {
    call("get_replication_snapshot", R"({"async":true,"job_id":")" + id + R"("})");
    call("wait_job", R"({"job_id":")" + id + R"(","timeout_s":60})");
  }
  const auto page = [this](const std::string& params) {
    const JsonDocument answer = call("list_jobs", params);
    std::string ids;
    for (const JsonValue& each : answer["jobs"].GetArray()) ids += each["job_id"].GetString();
    return ids + (answer.HasMember("more") ? answer["more"].GetBool() ? ", more" : ", no more" : "");
  };
  EXPECT_EQ(page("{}"), "abc");
  EXPECT_EQ(page(R"({"limit":2})"), "bc, more");
  EXPECT_EQ(page(R"({"limit":2,"before":"b"})"), "a, no more");
  EXPECT_EQ(page(R"({"limit":3})"), "abc, no more");
  EXPECT_EQ(page(R"({"before":"c"})"), "ab");
  EXPECT_EQ(failure("list_jobs", R"({"before":"other"})").code(), Code::not_found);
}

TEST_F(DispatcherTest, OneshotRefusesAsync) {
  Dispatcher oneshot(operations, jobs, false);
  const Error error = test::error_of([&] { oneshot.call("get_replication_snapshot", R"({"async":true})"); });
  EXPECT_EQ(error.code(), Code::invalid_argument);
  EXPECT_TRUE(jobs.list().empty());
}

TEST_F(DispatcherTest, ARepeatAnswersTheSameWhateverTheOrderOfKeys) {
  EXPECT_CALL(datastore, open_snapshot).Times(1);
  const std::string first =
      dispatcher.call("get_replication_snapshot", R"({"job_id":"a","snapshot_id":"s","compression":"lz4"})");
  const std::string again =
      dispatcher.call("get_replication_snapshot", R"( { "compression" : "lz4", "job_id":"a","snapshot_id":"s"})");
  EXPECT_EQ(first, again);
  const JsonDocument later =
      call("get_replication_snapshot", R"({"job_id":"a","snapshot_id":"s","compression":"lz4","async":true})");
  EXPECT_STREQ(later["job_id"].GetString(), "a");
  EXPECT_EQ(failure("get_replication_snapshot", R"({"job_id":"a","snapshot_id":"t","compression":"lz4"})").code(),
            Code::already_exists);
}

TEST_F(DispatcherTest, AFailedJobAnswersItsErrorWithItsId) {
  EXPECT_CALL(datastore, stop_replicating)
      .WillOnce(testing::Throw(Error(Code::failed_precondition, "no replica", "attach first")));
  const JsonDocument answer =
      ask(R"({"jsonrpc":"2.0","id":1,"method":"detach_replication_slave","params":{"job_id":"mine"}})");
  EXPECT_EQ(number(answer), -32009);
  EXPECT_EQ(code(answer), "FAILED_PRECONDITION");
  EXPECT_STREQ(answer["error"]["data"]["hint"].GetString(), "attach first");
  EXPECT_STREQ(answer["error"]["data"]["job_id"].GetString(), "mine");
}

TEST_F(DispatcherTest, ADryRunTouchesNothingAndIsNoJob) {
  Plan plan;
  plan.checks = {{"space", Check::Result::ok, "there is room", "", Code::internal},
                 {"binary log", Check::Result::failed, "it is off", "turn it on", Code::failed_precondition}};
  plan.steps = {"copy"};
  EXPECT_CALL(datastore, plan_snapshot).WillOnce(Return(plan));
  EXPECT_CALL(datastore, open_snapshot).Times(0);
  const JsonDocument answer = call("get_replication_snapshot", R"({"dry_run":true})");
  EXPECT_TRUE(answer["dry_run"].GetBool());
  EXPECT_FALSE(answer["ok"].GetBool());
  EXPECT_STREQ(answer["checks"][1]["result"].GetString(), "failed");
  EXPECT_STREQ(answer["checks"][1]["hint"].GetString(), "turn it on");
  EXPECT_STREQ(answer["checks"][1]["code"].GetString(), "FAILED_PRECONDITION");
  EXPECT_STREQ(answer["steps"][0].GetString(), "copy");
  EXPECT_TRUE(jobs.list().empty());
  EXPECT_TRUE(store.names().empty());
}

TEST_F(DispatcherTest, ADryRunOfADetachIsTheDatastoresPlan) {
  EXPECT_CALL(datastore, plan_stop).WillOnce([](const DetachRequest& request) {
    EXPECT_TRUE(request.force);
    return Plan{{}, {"let go"}};
  });
  EXPECT_CALL(datastore, stop_replicating).Times(0);
  const JsonDocument answer = call("detach_replication_slave", R"({"dry_run":true,"force":true})");
  EXPECT_TRUE(answer["ok"].GetBool());
  EXPECT_STREQ(answer["steps"][0].GetString(), "let go");
}

TEST_F(DispatcherTest, WhatAMethodThrowsIsAnAnswer) {
  EXPECT_CALL(upkeep, status).WillOnce(testing::Throw(std::runtime_error("odd")));
  const JsonDocument answer = ask(R"({"jsonrpc":"2.0","id":1,"method":"get_replication_status"})");
  EXPECT_EQ(number(answer), -32603);
  EXPECT_EQ(code(answer), "INTERNAL");
}

TEST_F(DispatcherTest, CountsWhatItAnswered) {
  ask(R"({"jsonrpc":"2.0","id":1,"method":"list_jobs"})");
  ask(R"({"jsonrpc":"2.0","id":1,"method":"\"} evil 1\n"})");
  EXPECT_EQ((dispatcher.counts().at({"list_jobs", "OK"})), 1u);
  EXPECT_EQ((dispatcher.counts().at({"", "UNIMPLEMENTED"})), 1u);
}

}  // namespace
}  // namespace guestagent

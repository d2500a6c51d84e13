// The text of the status: what every controller reads.
#include "agent/status_json.h"

#include <gtest/gtest.h>

namespace guestagent {
namespace {

TEST(StatusJson, OfAReplicaHasEveryKeyInItsOrder) {
  ReplicationStatus status;
  status.role = ReplicationRole::replica;
  status.verdict = ReplicationVerdict::diverged;
  status.reasons = {"it has \"some\" \xff"};
  status.own = OwnJson(R"({"server_id":2})");
  status.read_only = true;
  status.source = {"10.0.0.1", 3306, OwnJson(R"({"server_id":1})")};
  status.threads = {{"receiver", ThreadState::connecting}, {"applier", ThreadState::running, true}};
  status.lag_seconds = 0.012;
  status.lag_transactions = 0;
  status.errant = "0-2-10\xfe";
  status.numbers = {{"queue_bytes", "Room that the queue takes.", 4711}};
  status.received = OwnJson(R"({"at":900})");
  status.applied = OwnJson();
  status.source_position = status.received;
  status.errors_json = R"([{"thread":"io"}])";
  EXPECT_EQ(
      write_status(status),
      R"({"role":"replica","verdict":"diverged","reasons":["it has \"some\" �"],"server_id":2,)"
      R"("read_only":true,"source":{"host":"10.0.0.1","port":3306,"server_id":1},"receiver":"connecting",)"
      R"("applier":"running","lag_seconds":0.012,"lag_transactions":0,"errant":"0-2-10�",)"
      R"("queue_bytes":4711,"position":{"received":{"at":900},"applied":{},"source":{"at":900}},"errors":[{"thread":"io"}]})");
}

TEST(StatusJson, OfASourceHasItsReplicasAndItsOwnPlace) {
  ReplicationStatus status;
  status.role = ReplicationRole::source;
  status.verdict = ReplicationVerdict::source;
  status.own = OwnJson(R"({"server_id":7,"zone":"a"})");
  status.read_only = false;
  status.replicas = 3;
  status.source_position = OwnJson(R"({"at":4})");
  EXPECT_EQ(
      write_status(status),
      R"({"role":"source","verdict":"source","reasons":[],"server_id":7,"zone":"a","read_only":false,"replicas":3,)"
      R"("position":{"source":{"at":4}},"errors":[]})");
}

TEST(StatusJson, OfASilentServerHasLittle) {
  ReplicationStatus status;
  status.reasons = {"down"};
  EXPECT_EQ(write_status(status), R"({"verdict":"unreachable","reasons":["down"],"errors":[]})");
}

}  // namespace
}  // namespace guestagent

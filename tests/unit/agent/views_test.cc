// What people and machines are shown: progress, metrics, errors.
#include <unistd.h>

#include "agent/metrics.h"
#include "agent/progress_view.h"
#include "tests/unit/agent/agent_fixture.h"

namespace guestagent {
namespace {

using testing::HasSubstr;
using testing::Not;

JobRecord copying(std::uint64_t done, std::optional<std::uint64_t> total = {}, double rate = 0,
                  std::optional<std::uint64_t> eta = {}) {
  JobRecord record;
  record.state = JobState::running;
  record.phase = "copy";
  record.progress = {done, total, rate, eta};
  return record;
}

TEST(ProgressTest, SaysHowFarInWords) {
  EXPECT_EQ(progress_text(copying(0)), "copy");
  EXPECT_EQ(progress_text(copying(1536, 3072, 1 << 20, 200)),
            "copy: 1.5 KiB of 3.0 KiB (50 %), 1.0 MiB/s, 3 min 20 s left");
  EXPECT_EQ(progress_text(copying(1536)), "copy: 1.5 KiB");
  EXPECT_EQ(progress_text(copying(5, 0)), "copy: 5 B of 0 B");
  EXPECT_THAT(progress_text(copying(4000, 3000)), Not(HasSubstr("%"))) << "an estimate may be passed";
  EXPECT_EQ(human_bytes(UINT64_MAX), "16384.0 PiB");
  EXPECT_EQ(human_seconds(7500), "2 h 5 min");
}

std::string shown(bool terminal) {
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  {
    ProgressView view(ends[1], terminal);
    view.show(copying(1024, 4096));
    view.show(copying(2048, 4096));
    view.show(copying(2048, 4096));
    JobRecord next = copying(0);
    next.phase = "manifest";
    view.show(next);
  }
  ::close(ends[1]);
  std::string text(4096, '\0');
  text.resize(static_cast<std::size_t>(::read(ends[0], text.data(), text.size())));
  ::close(ends[0]);
  return text;
}

TEST(ProgressTest, IsOneLineAPhaseOnATerminal) {
  EXPECT_EQ(shown(true),
            "\rcopy: 1.0 KiB of 4.0 KiB (25 %)\x1b[K\rcopy: 2.0 KiB of 4.0 KiB (50 %)\x1b[K\n\rmanifest\x1b[K\n");
}

TEST(ProgressTest, IsFewPlainLinesElsewhere) {
  EXPECT_EQ(shown(false), "progress: copy: 1.0 KiB of 4.0 KiB (25 %)\nprogress: manifest\n");
}

TEST(RpcErrorTest, GoesAndComesBack) {
  const Error error(Code::busy, "a \"quoted\" thing", "wait");
  const Error back = read_rpc_error(write_rpc_error(error, "job"));
  EXPECT_EQ(back.code(), Code::busy);
  EXPECT_STREQ(back.what(), error.what());
  EXPECT_EQ(back.hint(), "wait");
  EXPECT_EQ(read_rpc_error("{}").code(), Code::internal);
  EXPECT_EQ(read_rpc_error("nonsense").code(), Code::internal);
}

class MetricsTest : public test::AgentFixture {};

TEST_F(MetricsTest, TellVerdictLagAndJobs) {
  call("delete_replication_snapshot", R"({"snapshot_href":"memory://x/manifest.json"})");
  ask(R"({"jsonrpc":"2.0","id":1,"method":"list_jobs"})");
  ReplicationStatus status = test::replica_status(ReplicationVerdict::lagging, ThreadState::stopped);
  status.lag_seconds = 12.5;
  status.lag_transactions = 3;
  status.numbers = {{"queue_bytes", "Room that the queue takes.", 4711}};
  const std::string text = render_metrics(jobs, dispatcher, status);
  EXPECT_THAT(text, HasSubstr("guestagent_replication_verdict{verdict=\"lagging\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("guestagent_replication_verdict{verdict=\"healthy\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("guestagent_replication_lag_seconds 12.5\n"));
  EXPECT_THAT(text, HasSubstr("guestagent_replication_lag_transactions 3\n"));
  EXPECT_THAT(text, HasSubstr("guestagent_replication_receiver_running 1\n"));
  EXPECT_THAT(text, HasSubstr("guestagent_replication_applier_running 0\n"));
  EXPECT_THAT(text, HasSubstr("guestagent_replication_errant 0\n"));
  EXPECT_THAT(text, HasSubstr("# HELP guestagent_replication_queue_bytes Room that the queue takes.\n"));
  EXPECT_THAT(text, HasSubstr("guestagent_replication_queue_bytes 4711\n"));
  EXPECT_THAT(text, HasSubstr("guestagent_jobs{method=\"delete_replication_snapshot\",state=\"succeeded\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("guestagent_rpc_requests_total{method=\"list_jobs\",code=\"OK\"} 1\n"));
}

}  // namespace
}  // namespace guestagent

// The Datastore contract on two real servers, without an agent or a store between them.
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"
#include "strategies/datastores.h"
#include "strategies/mysql/host/server_identity.h"
#include "strategies/mysql/server/server_client.h"
#include "tests/support/fake_job.h"
#include "tests/support/mariadb_server.h"

namespace guestagent {
namespace {

using test::FakeJob;
using test::MariadbOptions;
using test::MariadbServer;

// A server with its agent's half that is below the RPC.
struct Host {
  explicit Host(std::uint32_t server_id)
      : server(MariadbOptions{.server_id = server_id, .lines = {"event_scheduler=ON"}}),
        state(fs::temp_directory_path(), "datastore-") {
    settings.mysql = server.settings();
    settings.mysql.staging_dir.clear();
    settings.agent.state_dir = state.path();
    parts = make_datastore(settings, system_clock());
  }
  ~Host() {
    // What the agent started is not the test's child.
    const auto text = server.sql("SELECT @@pid_file");
    server.sql("SHUTDOWN");
    while (fs::exists(text.substr(0, text.find('\n')))) system_clock().sleep(Millis(20), {});
  }
  FakeJob& job() {
    jobs.push_back(std::make_unique<FakeJob>(state.path() / ("journal-" + std::to_string(jobs.size()))));
    return *jobs.back();
  }
  Datastore& store() { return *parts.datastore; }
  std::string verdict() { return std::string(to_string(parts.upkeep->status().verdict)); }

  MariadbServer server;
  TempDir state;
  Settings settings;
  DatastoreParts parts;
  std::vector<std::unique_ptr<FakeJob>> jobs;
};

class MysqlDatastore : public ::testing::Test {
 protected:
  MysqlDatastore() : source(101), target(202) {
    source.server.sql(
        "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(40)); INSERT INTO "
        "d.t (v) VALUES ('before');"
        "CREATE TABLE d.e (at DATETIME); CREATE EVENT d.every ON SCHEDULE EVERY 1 SECOND DO INSERT INTO d.e "
        "VALUES (NOW())");
  }

  // Straight from the tool's pipe into the target's directory; what is written meanwhile comes by
  // replication.
  AttachRequest copy(const fs::path& staging, FakeJob& job) {
    const auto stream = source.store().open_snapshot({"snap"}, source.job());
    source.server.sql("INSERT INTO d.t (v) VALUES ('meanwhile')");
    PiecesOf pieces(*stream, {"xbstream", "mariadb-backup", ""});
    target.store().receive(pieces, staging, job);
    const SourceFacts facts = stream->facts();
    server_json = facts.server_json;
    AttachRequest out;
    out.snapshot.master_host = facts.master_host;
    out.snapshot.master_port = facts.master_port;
    out.snapshot.datastore = "mysql";
    out.snapshot.datastore_version = facts.datastore_version;
    out.snapshot.dataset_bytes = out.snapshot.raw_bytes = facts.dataset_bytes;
    out.snapshot.data_position = facts.data_position;
    out.snapshot.lease_position = facts.lease_position;
    out.snapshot.replication_user = facts.replication_user;
    out.snapshot.replication_password = facts.replication_password;
    out.snapshot.require_tls = facts.require_tls;
    out.snapshot.tool = facts.tool;
    out.snapshot.format = facts.format;
    return out;
  }

  AttachOutcome attach() {
    FakeJob& job = target.job();
    const fs::path staging = target.parts.upkeep->make_staging({"xbstream", "mariadb-backup", ""}, job);
    request = copy(staging, job);
    require_passed(target.store().plan_attach(request, server_json), job);
    const auto installation = target.store().install(request, staging, job);
    const AttachOutcome outcome = target.store().start_replicating(request, job);
    job.journal().record("result");
    installation->accept();
    EXPECT_EQ(target.parts.upkeep->recover(Undertaking::attach, job), "");
    EXPECT_FALSE(fs::exists(target.server.dir() / "data.guestagent"));
    return outcome;
  }

  std::string failed_check(const AttachRequest& changed) {
    for (const Check& check : target.store().plan_attach(changed, server_json).checks) {
      if (check.result == Check::Result::failed) return check.name;
    }
    return "";
  }

  // Until the target has everything that the source has now.
  void catch_up() {
    const std::string gtid = source.server.sql("SELECT @@gtid_binlog_pos");
    EXPECT_EQ(target.server.sql("SELECT MASTER_GTID_WAIT('" + gtid.substr(0, gtid.find('\n')) + "', 60)"), "0\n");
  }

  Host source, target;
  AttachRequest request;
  std::string server_json;
};

TEST_F(MysqlDatastore, AttachFollowsAndDetachLivesOn) {
  const AttachOutcome outcome = attach();
  EXPECT_TRUE(outcome.caught_up);
  EXPECT_TRUE(outcome.read_only);
  const std::uint32_t id = mysql::asked_server_id(outcome.own).value_or(0);
  EXPECT_NE(id, 0U);
  EXPECT_NE(id, 101U);
  EXPECT_EQ(target.verdict(), "healthy");
  EXPECT_EQ(source.verdict(), "source");
  EXPECT_EQ(target.server.sql("SELECT @@event_scheduler, @@read_only"), "OFF\t1\n");

  source.server.sql("INSERT INTO d.t (v) VALUES ('after')");
  catch_up();
  EXPECT_EQ(target.server.sql("SELECT v FROM d.t ORDER BY id"), "before\nmeanwhile\nafter\n");
  const std::string written_here = target.server.sql("SELECT @@gtid_binlog_state");
  EXPECT_EQ(written_here.find("-" + std::to_string(id) + "-"), std::string::npos) << "errant: " << written_here;

  // What the source's agent made is on the target too, by the copy or by replication; so is what others made, and one
  // of its own.
  source.server.sql("CREATE USER repl_hand@'%'; GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO repl_hand@'%'");
  {
    mysql::ServerClient by_replication(mysql::local_target(source.settings.mysql));
    by_replication.create_replication_account("repl_later", "%", Secret("p"), false, true);
  }
  catch_up();
  const auto own_stream = target.store().open_snapshot({"own"}, target.job());
  const auto accounts = [&] {
    return target.server.sql("SELECT User FROM mysql.user WHERE User LIKE 'repl%' ORDER BY 1");
  };
  EXPECT_EQ(accounts(), "repl_hand\nrepl_later\nrepl_own\nrepl_snap\n");
  const std::string status = target.server.sql("SHOW MASTER STATUS");  // FILE, tab, position
  const std::size_t file_end = status.find('\t');
  const std::string position = status.substr(file_end + 1, status.find('\t', file_end + 1) - file_end - 1);
  const DetachOutcome detached = target.store().stop_replicating({}, target.job());
  EXPECT_EQ(detached.dropped_accounts, (std::vector<std::string>{"repl_later", "repl_snap"}));
  EXPECT_EQ(accounts(), "repl_hand\nrepl_own\n");
  // An event of the copy may write there again by now.
  EXPECT_EQ(target.server.sql("SHOW BINLOG EVENTS IN '" + status.substr(0, file_end) + "' FROM " + position)
                .find("DROP USER"),
            std::string::npos)
      << "not in the binary log";
  EXPECT_TRUE(mysql::position_of(detached.last_applied).gtid);
  EXPECT_EQ(target.verdict(), "source") << "it has made a snapshot of its own";
  EXPECT_EQ(target.server.sql("SHOW ALL SLAVES STATUS"), "");
  EXPECT_EQ(target.server.sql("SELECT @@read_only, @@event_scheduler, @@log_bin, @@server_id"),
            "0\tON\t1\t" + std::to_string(id) + "\n");
  target.server.sql("INSERT INTO d.t (v) VALUES ('own')");
}

TEST_F(MysqlDatastore, PreflightTellsWhatIsWrong) {
  FakeJob& job = target.job();
  const fs::path staging = target.parts.upkeep->make_staging({"xbstream", "mariadb-backup", ""}, job);
  request = copy(staging, job);
  EXPECT_EQ(failed_check(request), "");
  target.parts.upkeep->recover(Undertaking::attach, job);
  EXPECT_FALSE(fs::exists(staging));

  AttachRequest changed = request;
  changed.snapshot.datastore_version = "mariadb-99.1.0";
  EXPECT_EQ(failed_check(changed), "version");
  changed = request;
  changed.snapshot.raw_bytes = std::uint64_t{1} << 60;
  EXPECT_EQ(failed_check(changed), "space");
  changed = request;
  changed.snapshot.replication_password = Secret("wrong");
  EXPECT_EQ(failed_check(changed), "source");
  changed = request;
  changed.own = mysql::own_server_id(101);
  EXPECT_EQ(failed_check(changed), "server id");
  changed = request;
  changed.snapshot.master_port = target.server.port();
  EXPECT_EQ(failed_check(changed), "itself");
  changed = request;
  changed.snapshot.lease_position = OwnJson(R"({"file":"binlog.999999","position":4})");
  EXPECT_EQ(failed_check(changed), "binary logs");

  const std::string right = server_json;
  server_json = R"({"version":"mariadb-10.11.1","page_size":4096})";
  EXPECT_EQ(failed_check(request), "server options");
  server_json = R"({"version":"mariadb-10.11.1","page_size":16384,"plugins":["file_key_management"]})";
  EXPECT_EQ(failed_check(request), "encryption");
  server_json = right;

  target.server.sql("CREATE DATABASE precious");
  EXPECT_EQ(failed_check(request), "user data");
  changed = request;
  changed.overwrite = true;
  EXPECT_EQ(failed_check(changed), "");
}

TEST_F(MysqlDatastore, FailedReplicationPutsTheOldDataBack) {
  target.server.sql(
      "CREATE DATABASE precious; CREATE TABLE precious.t (id INT PRIMARY KEY); INSERT INTO precious.t VALUES "
      "(7)");
  FakeJob& job = target.job();
  const fs::path staging = target.parts.upkeep->make_staging({"xbstream", "mariadb-backup", ""}, job);
  request = copy(staging, job);
  request.overwrite = true;
  {
    const auto installation = target.store().install(request, staging, job);
    source.server.sql("DROP USER '" + request.snapshot.replication_user + "'@'%'");
    EXPECT_THROW(target.store().start_replicating(request, job), Error);
  }
  target.parts.upkeep->recover(Undertaking::attach, job);
  EXPECT_EQ(target.server.sql("SELECT id FROM precious.t"), "7\n");
  EXPECT_EQ(target.server.sql("SELECT @@server_id, @@read_only"), "202\t0\n");
  EXPECT_EQ(target.verdict(), "standalone");
  EXPECT_FALSE(fs::exists(target.server.dir() / "data.guestagent"));
  EXPECT_FALSE(fs::exists(target.state.path() / "replica.json"));
}

}  // namespace
}  // namespace guestagent

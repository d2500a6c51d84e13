// A copy of one real server received, prepared and installed on another, accepted, undone and failed.
#include "strategies/mysql/install.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>

#include "base/child.h"
#include "base/error.h"
#include "strategies/mysql/option_file.h"
#include "strategies/mysql/receive.h"
#include "strategies/mysql/server_client.h"
#include "strategies/mysql/switch_data.h"
#include "strategies/mysql/tree_move.h"
#include "tests/support/fake_job.h"
#include "tests/support/mariadb_server.h"
#include "tests/support/zygote.h"

namespace guestagent::mysql {
namespace {

using test::FakeJob;
using test::MariadbOptions;
using test::MariadbServer;

// The backup tool's own stream, straight.
class ToolStream : public ByteSource {
 public:
  explicit ToolStream(const fs::path& socket) : tool_(spec(socket)) {}
  std::size_t read(std::span<std::byte> into) override {
    const ssize_t n = ::read(tool_.stdout_fd(), into.data(), into.size());
    if (n < 0) throw system_error("reading the backup", errno);
    if (n == 0 && !tool_.wait().ok()) throw Error(Code::internal, "the backup failed");
    return static_cast<std::size_t>(n);
  }

 private:
  static ChildSpec spec(const fs::path& socket) {
    ChildSpec out;
    out.argv = {"mariadb-backup", "--no-defaults", "--backup", "--stream=xbstream", "--user=root", "--socket=" + socket.string()};
    out.pipe_stdout = true;
    return out;
  }
  Child tool_;
};

// As the agent's operations do it.
fs::path receive_from(const fs::path& socket, const MysqlSettings& settings, FakeJob& job) {
  const fs::path dir = new_work_path(work_dir(settings.data_dir), "staging");
  JsonWriter out;
  out.begin_object().member("dir", dir.string()).end_object();
  job.journal().record("staging", out.text());
  make_dir(dir.parent_path(), 0711);
  make_dir(dir, 0700);
  ToolStream stream(socket);
  receive_copy(stream, "xbstream", dir, settings, job);
  return dir;
}

AttachRequest any_request() {
  AttachRequest request;
  request.overwrite = true;
  request.snapshot.master_host = "127.0.0.1";
  request.snapshot.master_port = 3306;
  request.snapshot.binlog_position.gtid = "0-11-1";
  return request;
}

// What is to be killed: the directory of the target, the source's socket, the state directory, the journal.
void attach_in_another_process(const std::vector<std::string>& words) {
  MysqlSettings settings = MariadbServer::settings_of(words.at(0));
  const auto control = make_server_control(settings, words.at(2), system_clock());
  const InstallParts parts{settings, words.at(2), *control, system_clock()};
  FakeJob job(words.at(3));
  const fs::path dir = receive_from(words.at(1), settings, job);
  install_data(parts, any_request(), 33, dir, job);
}

std::unique_ptr<test::Zygote> zygote;

class BeforeAnyThread : public ::testing::Environment {
  void SetUp() override { zygote = std::make_unique<test::Zygote>(attach_in_another_process); }
  void TearDown() override { zygote.reset(); }
};
const auto* const kBefore = ::testing::AddGlobalTestEnvironment(new BeforeAnyThread);

class Install : public ::testing::Test {
 protected:
  Install()
      : source(MariadbOptions{.server_id = 11, .lines = {"event_scheduler=ON"}}),
        target(MariadbOptions{.server_id = 22, .lines = {"event_scheduler=ON"}}),
        state(fs::temp_directory_path(), "install-"),
        settings(target.settings()),
        control(make_server_control(settings, state.path(), system_clock())),
        parts{settings, state.path(), *control, system_clock()},
        job(state.path() / "journal") {
    settings.server.stop_timeout = settings.server.start_timeout = Seconds(60);
    source.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, v TEXT) ENGINE=InnoDB; INSERT INTO d.t VALUES (1,'one'),(2,'two');"
               "CREATE EVENT d.e ON SCHEDULE EVERY 1 SECOND DO INSERT INTO d.t SELECT MAX(id)+1, 'event' FROM d.t;");
    target.sql("CREATE DATABASE old; CREATE TABLE old.t (id INT PRIMARY KEY); INSERT INTO old.t VALUES (42)");
    EXPECT_NE(kBefore, nullptr);
  }

  ~Install() override {
    if (control->running()) control->stop(Seconds(60));
  }

  fs::path staging() { return receive_from(source.socket(), settings, job); }

  void expect_old_server() {
    EXPECT_EQ(target.sql("SELECT id FROM old.t"), "42\n");
    EXPECT_EQ(target.sql("SELECT @@server_id, @@read_only, @@event_scheduler"), "22\t0\tON\n");
    expect_nothing_left();
    EXPECT_FALSE(fs::exists(settings.managed_file));
  }

  void expect_nothing_left() {
    EXPECT_FALSE(fs::exists(target.dir() / "data.guestagent"));
    for (const auto& entry : fs::directory_iterator(settings.data_dir)) {
      EXPECT_EQ(entry.path().filename().string().find("guestagent"), std::string::npos) << entry.path();
    }
  }

  MariadbServer source, target;
  TempDir state;
  MysqlSettings settings;
  std::unique_ptr<ServerControl> control;
  InstallParts parts;
  FakeJob job;
  AttachRequest request = any_request();
};

TEST_F(Install, NewDataRunsAsAReplicaMust) {
  const fs::path dir = staging();
  const auto installed = install_data(parts, request, 33, dir, job);
  EXPECT_EQ(target.sql("SELECT v FROM d.t WHERE id < 3"), "one\ntwo\n");
  EXPECT_EQ(target.sql("SELECT @@server_id, @@read_only, @@event_scheduler, @@log_bin, @@log_slave_updates, @@report_host"),
            "33\t1\tOFF\t1\t1\t127.0.0.1\n");
  EXPECT_EQ(target.sql("SHOW ALL SLAVES STATUS"), "");
  EXPECT_EQ(target.sql("SELECT COUNT(*) FROM mysql.gtid_slave_pos"), "0\n");
  EXPECT_EQ(target.sql("SELECT @@gtid_binlog_pos"), "\n") << "the agent left a transaction of its own";
  EXPECT_TRUE(fs::exists(target.dir() / "data.guestagent"));
  installed->accept();
  expect_nothing_left();
  EXPECT_EQ(target.sql("SELECT COUNT(*) > 1 FROM d.t"), "1\n");
  EXPECT_NE(read_file(state.path() / "mysql/server_id.json").find("33"), std::string::npos);
  EXPECT_EQ(settle_installation(parts, true, job), "");
}

TEST_F(Install, UndoServesTheOldData) {
  const fs::path dir = staging();
  install_data(parts, request, 33, dir, job)->undo();
  expect_old_server();
  EXPECT_EQ(settle_installation(parts, false, job), "");
  expect_old_server();
}

TEST_F(Install, DroppingItIsUndo) {
  const fs::path dir = staging();
  { const auto installed = install_data(parts, request, 33, dir, job); }
  expect_old_server();
}

TEST_F(Install, PreviousDataIsKeptWhenAsked) {
  request.keep_previous_data = true;
  const fs::path dir = staging();
  install_data(parts, request, 33, dir, job)->accept();
  ASSERT_FALSE(job.warnings().empty());
  const std::string told = job.warnings().back();
  const fs::path kept = told.substr(told.find(" in /") + 4);
  EXPECT_TRUE(fs::exists(kept / "data/ibdata1")) << told;
  EXPECT_TRUE(fs::exists(kept / "data/old")) << told;
}

TEST_F(Install, AgentAccountIsMadeAgain) {
  const fs::path password = state.path() / "password";
  write_file_atomic(password, "pw-of-the-target\n", 0600);
  settings.user = "guestagent";
  settings.password_file = password;
  target.sql("CREATE USER guestagent@localhost IDENTIFIED BY 'pw-of-the-target'; GRANT ALL ON *.* TO guestagent@localhost WITH GRANT OPTION");
  source.sql("CREATE USER guestagent@localhost IDENTIFIED BY 'another'");
  const std::string root_before = source.sql("SHOW CREATE USER root@localhost");
  const fs::path dir = staging();
  const auto installed = install_data(parts, request, 33, dir, job);
  ServerClient client(local_target(settings));
  EXPECT_EQ(client.identity().server_id, 33U);
  EXPECT_EQ(target.sql("SHOW CREATE USER root@localhost"), root_before);
  EXPECT_EQ(target.sql("SELECT @@gtid_binlog_pos"), "\n") << "the agent left a transaction of its own";
  installed->accept();
}

TEST_F(Install, OptionsThatDoNotHoldAreUndone) {
  write_file_atomic(settings.managed_file.parent_path() / "zzz-later.cnf", "[mysqld]\nserver_id=77\n");
  target.stop();
  control->start(Seconds(60));
  const fs::path dir = staging();
  try {
    install_data(parts, request, 33, dir, job);
    FAIL() << "installed";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::failed_precondition) << e.what();
    EXPECT_NE(std::string(e.what()).find("server_id is 77"), std::string::npos) << e.what();
  }
  EXPECT_EQ(target.sql("SELECT id FROM old.t"), "42\n");
  EXPECT_EQ(target.sql("SELECT @@server_id"), "77\n");
}

TEST_F(Install, ServerRefusesToStartWhileTheGuardStands) {
  target.stop();
  put_managed(settings.managed_file, guard_text());
  try {
    control->start(Seconds(30));
    FAIL() << "it started";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::unavailable) << e.what();
  }
  EXPECT_NE(read_file(target.dir() / "error.log", 1 << 24).find("guestagent-switch-in-progress"), std::string::npos);
  put_managed(settings.managed_file, std::nullopt);
  control->start(Seconds(30));
}

// A target whose data is spread over directories of its own, the data directory being a mount point.
class InstallElsewhere : public ::testing::Test {
 protected:
  // The server's object makes its directories when it is made: what is mounted and where its logs are must be there before.
  InstallElsewhere() : places(fs::temp_directory_path(), "places-"), state(fs::temp_directory_path(), "install-"), source(MariadbOptions{.server_id = 11, .lines = {}}) {
    for (const char* name : {"redo", "undo", "aria", "binlogs"}) make_dir(places.path() / name);
    const auto in = [&](const char* name) { return (places.path() / name).string(); };
    target = std::make_unique<MariadbServer>(MariadbOptions{
        .server_id = 22,
        .lines = {"innodb_log_group_home_dir=" + in("redo"), "innodb_undo_directory=" + in("undo"), "innodb_undo_tablespaces=2",
                  "aria_log_dir_path=" + in("aria"), "log_bin=" + in("binlogs") + "/host-bin", "relay_log=" + in("binlogs") + "/host-relay"},
        .start = false});
    settings = target->settings();
    settings.staging_dir.clear();
    mount_data();
    target->start();
    target->sql("CREATE DATABASE old; CREATE TABLE old.t (id INT PRIMARY KEY); INSERT INTO old.t VALUES (42)");
    source.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY); INSERT INTO d.t VALUES (1)");
    control = make_server_control(settings, state.path(), system_clock());
  }

  ~InstallElsewhere() override {
    if (control->running()) control->stop(Seconds(60));
    ::umount2(target->data_dir().c_str(), MNT_DETACH);
  }

  // What the installer made moves onto a file system of its own.
  void mount_data() {
    const fs::path aside = places.path() / "aside";
    fs::rename(target->data_dir(), aside);
    make_dir(target->data_dir());
    ASSERT_EQ(::mount("tmpfs", target->data_dir().c_str(), "tmpfs", 0, "size=512m"), 0) << "these tests mount file systems: run them as root";
    for (const auto& entry : fs::directory_iterator(aside)) move_entry(aside, target->data_dir(), entry.path().filename());
    make_dir(target->data_dir() / "lost+found", 0700);
  }

  std::vector<std::string> names_in(const char* place) {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(places.path() / place)) out.push_back(entry.path().filename().string());
    std::sort(out.begin(), out.end());
    return out;
  }

  TempDir places, state;
  MariadbServer source;
  std::unique_ptr<MariadbServer> target;
  MysqlSettings settings;
  std::unique_ptr<ServerControl> control;
};

TEST_F(InstallElsewhere, AcceptedAndUndone) {
  const InstallParts parts{settings, state.path(), *control, system_clock()};
  const std::vector<std::string> binlogs = names_in("binlogs");
  {
    FakeJob job(state.path() / "first");
    const fs::path dir = receive_from(source.socket(), settings, job);
    EXPECT_EQ(dir.parent_path(), settings.data_dir / ".guestagent");
    install_data(parts, any_request(), 33, dir, job)->undo();
  }
  EXPECT_EQ(target->sql("SELECT id FROM old.t"), "42\n");
  EXPECT_EQ(target->sql("SELECT @@server_id"), "22\n");
  EXPECT_FALSE(fs::exists(settings.data_dir / ".guestagent"));
  const std::vector<std::string> after = names_in("binlogs");
  EXPECT_TRUE(std::includes(after.begin(), after.end(), binlogs.begin(), binlogs.end())) << "the old binary logs are back";

  AttachRequest request = any_request();
  request.keep_previous_data = true;
  FakeJob job(state.path() / "second");
  const fs::path dir = receive_from(source.socket(), settings, job);
  install_data(parts, request, 33, dir, job)->accept();
  EXPECT_EQ(target->sql("SELECT id FROM d.t"), "1\n");
  EXPECT_EQ(target->sql("SELECT @@log_bin_basename"), (places.path() / "binlogs/host-bin").string() + "\n");
  EXPECT_EQ(target->sql("SHOW DATABASES").find("guestagent"), std::string::npos) << target->sql("SHOW DATABASES");
  EXPECT_TRUE(fs::exists(settings.data_dir / ".guestagent"));
  for (const char* place : {"redo", "undo", "aria", "binlogs"}) EXPECT_FALSE(names_in(place).empty()) << place;
  EXPECT_EQ(target->sql("SHOW BINARY LOGS").find("000002"), std::string::npos) << "the old ones went with the old data";

  // What is kept there does not stand in a later copy's way.
  const fs::path copy = state.path() / "copy";
  ToolStream stream(target->socket());
  receive_copy(stream, "xbstream", copy, settings, job);
  EXPECT_TRUE(fs::exists(copy / "d/t.ibd"));
}

// Killed at each step of the journal, and in the middle of the exchange; another process then settles it.
TEST_F(Install, KilledAnywhereIsUndone) {
  int kills = 0;
  for (const char* point : {"journal:install.begin", "journal:install.stop", "journal:switch.plan", "switch:out@2", "journal:switch.in", "switch:in@3",
                            "journal:switch.done", "journal:install.record", "journal:first-start", "journal:install.start", "journal:install.done"}) {
    SCOPED_TRACE(point);
    const fs::path file = state.path() / ("journal-" + std::to_string(++kills));
    ASSERT_EQ(zygote->run(point, {target.dir(), source.socket(), state.path(), file}), SIGKILL);
    FakeJob after(file);
    EXPECT_NE(settle_installation(parts, false, after), "");
    expect_old_server();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace guestagent::mysql

// A copy of one real server received, prepared and installed on another, accepted, undone and failed.
#include "strategies/mysql/install/install.h"

#include <gtest/gtest.h>
#include <pwd.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/child.h"
#include "base/error.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/host/tree_move.h"
#include "strategies/mysql/host/work_places.h"
#include "strategies/mysql/install/receive.h"
#include "strategies/mysql/install/switch_data.h"
#include "strategies/mysql/server/server_client.h"
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
    out.argv = {"mariadb-backup",    "--no-defaults", "--backup",
                "--stream=xbstream", "--user=root",   "--socket=" + socket.string()};
    out.pipe_stdout = true;
    return out;
  }
  Child tool_;
};

// As the agent's operations do it.
std::uint64_t receive_plain(ByteSource& stream, const std::string& format, const fs::path& dir,
                            const MysqlSettings& settings, JobContext& job) {
  PiecesOf pieces(stream, {format, "mariadb-backup", ""});
  return receive_copy(pieces, dir, settings, job);
}

fs::path receive_from(const fs::path& socket, const MysqlSettings& settings, FakeJob& job) {
  const fs::path dir = new_work_path(work_dir(settings.data_dir), "staging");
  JsonWriter out;
  out.begin_object().member("dir", dir.string()).end_object();
  job.journal().record("staging", out.text());
  make_dir(dir.parent_path(), 0711);
  make_dir(dir, 0700);
  ToolStream stream(socket);
  receive_plain(stream, "xbstream", dir, settings, job);
  return dir;
}

// "mariadb-10.11.19": source and target are the same.
std::string installed_version() {
  const std::string said = run_and_read({.argv = {"mariadbd", "--no-defaults", "--version"}}, Seconds(30));
  const std::string text = said.substr(said.find("Ver ") + 4);
  return parse_server_version(text.substr(0, text.find(' ')), "").text();
}

AttachRequest any_request() {
  static const std::string version = installed_version();
  AttachRequest request;
  request.snapshot.datastore_version = version;
  request.overwrite = true;
  request.snapshot.master_host = "127.0.0.1";
  request.snapshot.master_port = 3306;
  request.snapshot.data_position = OwnJson(R"({"gtid":"0-11-1"})");
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
    source.sql(
        "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, v TEXT) ENGINE=InnoDB; INSERT INTO d.t VALUES "
        "(1,'one'),(2,'two');"
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

  InstallParts parts_now() const { return {settings, state.path(), *control, system_clock()}; }
};

TEST_F(Install, NewDataRunsAsAReplicaMust) {
  const fs::path dir = staging();
  const auto installed = install_data(parts, request, 33, dir, job);
  EXPECT_EQ(target.sql("SELECT v FROM d.t WHERE id < 3"), "one\ntwo\n");
  EXPECT_EQ(
      target.sql("SELECT @@server_id, @@read_only, @@event_scheduler, @@log_bin, @@log_slave_updates, @@report_host"),
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
  install_data(parts, request, 33, dir, job);
  EXPECT_NE(settle_installation(parts, false, job), "");
  expect_old_server();
  EXPECT_EQ(settle_installation(parts, false, job), "");
  expect_old_server();
}

TEST_F(Install, DroppingItLeavesTheUndoToTheJournal) {
  const fs::path dir = staging();
  { const auto installed = install_data(parts, request, 33, dir, job); }
  EXPECT_EQ(target.sql("SELECT v FROM d.t WHERE id < 3"), "one\ntwo\n") << "one way to undo, and this is not it";
  settle_installation(parts, false, job);
  expect_old_server();
}

TEST_F(Install, OldDataThatSomebodyRemovedBarsNobodyForEver) {
  const fs::path dir = staging();
  install_data(parts, request, 33, dir, job);
  fs::remove_all(target.dir() / "data.guestagent");
  try {
    settle_installation(parts, false, job);
    FAIL() << "undone";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::data_loss) << e.what();
    for (const std::string& way_out : {(state.path() / "jobs").string(), settings.managed_file.string()}) {
      EXPECT_NE(e.hint().find(way_out), std::string::npos) << e.hint();
    }
  }
  fs::remove(settings.managed_file);
  control->start(Seconds(60));
  EXPECT_EQ(target.sql("SELECT v FROM d.t WHERE id < 3"), "one\ntwo\n") << "what is there is whole";
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
  target.sql(
      "CREATE USER guestagent@localhost IDENTIFIED BY 'pw-of-the-target'; GRANT ALL ON *.* TO guestagent@localhost "
      "WITH GRANT OPTION");
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
  settle_installation(parts, false, job);
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

// The usual case of an installed server: the agent is root, the server's user is not.
TEST_F(Install, DataBelongsToTheServersUser) {
  const passwd* nobody = ::getpwnam("nobody");
  ASSERT_NE(nobody, nullptr);
  target.stop();
  const auto give = [&](const fs::path& path) {
    ASSERT_EQ(::lchown(path.c_str(), nobody->pw_uid, nobody->pw_gid), 0) << path;
  };
  for (const auto& entry : fs::recursive_directory_iterator(target.dir())) give(entry.path());
  give(target.dir());
  fs::permissions(target.dir(), fs::perms(0755));
  settings.os_user = "nobody";
  control = make_server_control(settings, state.path(), system_clock());
  control->start(Seconds(60));
  // The lab's root comes by the socket's peer, whoever runs the server.
  const fs::path dir = staging();
  install_data(parts_now(), request, 33, dir, job)->accept();
  EXPECT_EQ(target.sql("SELECT COUNT(*) > 1 FROM d.t"), "1\n");
  for (const auto& entry : fs::recursive_directory_iterator(target.data_dir())) {
    struct stat info {};
    ASSERT_EQ(::lstat(entry.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, nobody->pw_uid) << entry.path();
    EXPECT_EQ(info.st_mode & 07, 0U) << entry.path();
  }
  const auto server = data_holder(target.data_dir());
  ASSERT_TRUE(server);
  struct stat info {};
  ASSERT_EQ(::stat(("/proc/" + std::to_string(*server)).c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, nobody->pw_uid);
  expect_nothing_left();
}

// A full disk while the copy is extracted, and while it is prepared beside it: an error of that kind, and nothing left.
TEST_F(Install, FullDiskWhileReceiving) {
  for (const char* size : {"size=4m", "size=14m"}) {
    SCOPED_TRACE(size);
    const fs::path small = state.path() / "small";
    make_dir(small);
    ASSERT_EQ(::mount("tmpfs", small.c_str(), "tmpfs", 0, size), 0)
        << "these tests mount file systems: run them as root";
    ToolStream stream(source.socket());
    try {
      receive_plain(stream, "xbstream", small / "copy", settings, job);
      ADD_FAILURE() << "it fitted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::resource_exhausted) << e.what();
    }
    EXPECT_TRUE(!fs::exists(small / "copy") || fs::is_empty(small / "copy"));
    EXPECT_EQ(::umount(small.c_str()), 0);
  }
  expect_old_server();
}

// What a stream may do: end too early at a place where the extract tool does not notice, or fail.
TEST_F(Install, CopyThatIsNotWholeIsRefused) {
  class Text : public ByteSource {
   public:
    explicit Text(std::string text) : text_(std::move(text)) {}
    std::size_t read(std::span<std::byte> into) override {
      const std::size_t n = std::min(into.size(), text_.size());
      std::copy_n(std::as_bytes(std::span(text_)).begin(), n, into.begin());
      text_.erase(0, n);
      return n;
    }

   private:
    std::string text_;
  };
  const fs::path dir = state.path() / "copy";
  Text empty(""), garbage(std::string(4 << 20, 'x'));
  EXPECT_THROW(receive_plain(empty, "xbstream", dir, settings, job), Error);
  EXPECT_THROW(receive_plain(garbage, "xbstream", dir, settings, job), Error);
  EXPECT_TRUE(fs::is_empty(dir));
  Text none("");
  EXPECT_THROW(receive_plain(none, "tar", dir, settings, job), Error);
  write_file_atomic(dir / "somebody's", "");
  ToolStream stream(source.socket());
  EXPECT_THROW(receive_plain(stream, "xbstream", dir, settings, job), Error);
  EXPECT_TRUE(fs::exists(dir / "somebody's"));
}

// A target whose data is spread over directories of its own, the data directory being a mount point.
class InstallElsewhere : public ::testing::Test {
 protected:
  // The server's object makes its directories when it is made: what is mounted and where its logs are must be there
  // before.
  InstallElsewhere()
      : places(fs::temp_directory_path(), "places-"),
        state(fs::temp_directory_path(), "install-"),
        source(MariadbOptions{.server_id = 11, .lines = {}}) {
    for (const char* name : {"redo", "undo", "aria", "binlogs"}) make_dir(places.path() / name);
    const auto in = [&](const char* name) { return (places.path() / name).string(); };
    target = std::make_unique<MariadbServer>(MariadbOptions{
        .server_id = 22,
        .lines = {"innodb_log_group_home_dir=" + in("redo"), "innodb_undo_directory=" + in("undo"),
                  "innodb_undo_tablespaces=2", "aria_log_dir_path=" + in("aria"),
                  "log_bin=" + in("binlogs") + "/host-bin", "relay_log=" + in("binlogs") + "/host-relay"},
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
    ASSERT_EQ(::mount("tmpfs", target->data_dir().c_str(), "tmpfs", 0, "size=512m"), 0)
        << "these tests mount file systems: run them as root";
    for (const auto& entry : fs::directory_iterator(aside))
      move_entry(aside, target->data_dir(), entry.path().filename());
    make_dir(target->data_dir() / "lost+found", 0700);
  }

  std::vector<std::string> names_in(const char* place) {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(places.path() / place))
      out.push_back(entry.path().filename().string());
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
    install_data(parts, any_request(), 33, dir, job);
    settle_installation(parts, false, job);
  }
  EXPECT_EQ(target->sql("SELECT id FROM old.t"), "42\n");
  EXPECT_EQ(target->sql("SELECT @@server_id"), "22\n");
  EXPECT_FALSE(fs::exists(settings.data_dir / ".guestagent"));
  const std::vector<std::string> after = names_in("binlogs");
  EXPECT_TRUE(std::includes(after.begin(), after.end(), binlogs.begin(), binlogs.end()))
      << "the old binary logs are back";

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
  receive_plain(stream, "xbstream", copy, settings, job);
  EXPECT_TRUE(fs::exists(copy / "d/t.ibd"));
}

// Killed at a step of the journal, or in the middle of the exchange; another process then settles it.
class InstallKilled : public Install, public ::testing::WithParamInterface<std::vector<std::string>> {};

TEST_P(InstallKilled, IsUndone) {
  int kills = 0;
  for (const std::string& point : GetParam()) {
    SCOPED_TRACE(point);
    const fs::path file = state.path() / ("journal-" + std::to_string(++kills));
    ASSERT_EQ(zygote->run(point, {target.dir(), source.socket(), state.path(), file}), SIGKILL);
    FakeJob after(file);
    EXPECT_NE(settle_installation(parts, false, after), "");
    expect_old_server();
    if (HasFailure()) return;
  }
}

std::string phase_name(const ::testing::TestParamInfo<std::vector<std::string>>& param) {
  return param.index == 0 ? "TheStop" : param.index == 1 ? "TheExchange" : "TheStarts";
}

INSTANTIATE_TEST_SUITE_P(At, InstallKilled,
                         ::testing::Values(std::vector<std::string>{"journal:install.begin", "journal:install.stop",
                                                                    "journal:switch.plan", "switch:out@2"},
                                           std::vector<std::string>{"journal:switch.in", "switch:in@3",
                                                                    "journal:switch.done", "journal:install.record"},
                                           std::vector<std::string>{"journal:first-start", "journal:install.start",
                                                                    "journal:install.done"}),
                         phase_name);

}  // namespace
}  // namespace guestagent::mysql

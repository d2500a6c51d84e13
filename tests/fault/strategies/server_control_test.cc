// Stopping and starting by each kind of control, on a real server.
#include "strategies/mysql/host/server_control.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <cstdlib>

#include "base/error.h"
#include "strategies/mysql/host/detached.h"
#include "tests/support/mariadb_server.h"
#include "tests/support/zygote.h"

namespace guestagent::mysql {
namespace {

using test::MariadbOptions;
using test::MariadbServer;

void start_and_die(const std::vector<std::string>& words) {
  const MysqlSettings settings = MariadbServer::settings_of(words.at(0));
  make_server_control(settings, words.at(1), system_clock())->start(Seconds(60));
  ::kill(::getpid(), SIGKILL);
}

std::unique_ptr<test::Zygote> starter;
class BeforeItsThreads : public ::testing::Environment {
  void SetUp() override { starter = std::make_unique<test::Zygote>(start_and_die); }
  void TearDown() override { starter.reset(); }
};
const auto* const kBeforeItsThreads = ::testing::AddGlobalTestEnvironment(new BeforeItsThreads);

class Control : public ::testing::Test {
 protected:
  Control()
      : server(MariadbOptions{.lines = {}, .start = false}),
        state(fs::temp_directory_path(), "control-"),
        settings(server.settings()) {
    EXPECT_NE(kBeforeItsThreads, nullptr);
  }
  ~Control() override {
    const auto last = make_server_control(settings_at_end.value_or(settings), state.path(), system_clock());
    if (last->running()) last->stop(Seconds(60));
  }
  std::unique_ptr<ServerControl> control() { return make_server_control(settings, state.path(), system_clock()); }

  // A program on PATH that stands for one that is not here.
  void put_program(const std::string& name, const std::string& text) {
    const fs::path bin = state.path() / "bin";
    make_dir(bin);
    write_file_atomic(bin / name, "#!/bin/sh\n" + text, 0755);
    const std::string path = ::getenv("PATH");
    if (path.find(bin.string()) == std::string::npos) ::setenv("PATH", (bin.string() + ":" + path).c_str(), 1);
  }

  MariadbServer server;
  TempDir state;
  MysqlSettings settings;
  std::optional<MysqlSettings> settings_at_end;
};

TEST_F(Control, ProcessStartsStopsAndFindsItAgain) {
  EXPECT_FALSE(control()->running());
  control()->stop(Seconds(1));
  control()->start(Seconds(60));
  EXPECT_EQ(server.sql("SELECT 1"), "1\n");
  const auto first = read_process_record(state.path() / "mysql/server.pid");
  ASSERT_TRUE(first);
  EXPECT_EQ(data_holder(server.data_dir()), first->pid);
  control()->start(Seconds(60));
  EXPECT_EQ(read_process_record(state.path() / "mysql/server.pid"), first) << "started twice";
  EXPECT_TRUE(control()->running());
  control()->stop(Seconds(60));
  EXPECT_FALSE(control()->running());
  EXPECT_FALSE(alive(*first));
  EXPECT_FALSE(data_holder(server.data_dir()));
}

TEST_F(Control, ProcessOutlivesTheAgent) {
  EXPECT_EQ(starter->run("none", {server.dir(), state.path()}), SIGKILL);
  EXPECT_EQ(server.sql("SELECT 1"), "1\n");
  EXPECT_TRUE(control()->running());
  control()->stop(Seconds(60));
  EXPECT_FALSE(control()->running());
}

TEST_F(Control, ProcessStopsAServerThatSomebodyElseStarted) {
  server.start();
  EXPECT_TRUE(control()->running());
  control()->stop(Seconds(60));
  EXPECT_FALSE(server.running());
}

TEST_F(Control, RecordOfAnotherProcessIsNotBelieved) {
  make_dir(state.path() / "mysql");
  write_file_atomic(state.path() / "mysql/server.pid", "{\"pid\":" + std::to_string(::getpid()) + ",\"started\":1}\n");
  EXPECT_FALSE(control()->running());
  control()->stop(Seconds(1));  // and this process lives on
}

TEST_F(Control, ServerThatCannotStartSaysWhy) {
  settings.server.command.push_back("--no-such-option");
  try {
    control()->start(Seconds(60));
    FAIL() << "it started";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::unavailable) << e.what();
  }
  settings.server.command = {"no-such-program-here"};
  try {
    control()->start(Seconds(60));
    FAIL() << "it started";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::not_found) << e.what();
  }
  settings = server.settings();
}

TEST_F(Control, StopThatTakesTooLongIsAnErrorAndKillsNobody) {
  server.start();
  ASSERT_EQ(::kill(server.pid(), SIGSTOP), 0);
  try {
    control()->stop(Millis(300));
    ADD_FAILURE() << "it stopped";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::deadline_exceeded) << e.what();
  }
  EXPECT_EQ(::kill(server.pid(), SIGCONT), 0);
  control()->stop(Seconds(60));
}

TEST_F(Control, CommandsMayStayOrLeaveTheServerBehind) {
  const std::string options = " --defaults-file=" + server.defaults_file().string();
  settings.server.control = "commands";
  put_program("stop-it", "kill $(cat " + (server.dir() / "pid").string() + ")\n");
  settings.server.stop = {"stop-it"};
  for (const std::string& how :
       {"exec mariadbd" + options, "mariadbd" + options + " &\n", "setsid mariadbd" + options + " </dev/null &\n"}) {
    SCOPED_TRACE(how);
    put_program("start-it", how);
    settings.server.start = {"start-it"};
    control()->start(Seconds(60));
    EXPECT_EQ(server.sql("SELECT 1"), "1\n");
    control()->stop(Seconds(60));
    EXPECT_FALSE(control()->running());
  }
  settings_at_end = server.settings();
}

// A stand-in for systemd: the server is started with a unit's name, and its state is told.
TEST_F(Control, SystemdUnit) {
  const std::string pid = (server.dir() / "pid").string(), log = (state.path() / "calls").string();
  put_program("systemctl", "echo \"$@\" >> " + log + "\ncase \"$*\" in\n*show*) [ -e " + pid +
                               " ] && echo active || echo inactive;;\n*reset-failed*) exit 1;;\n" +
                               "*start*) setsid mariadbd --defaults-file=" + server.defaults_file().string() +
                               " >/dev/null 2>&1 </dev/null & while [ ! -e " + pid +
                               " ]; do sleep 0.05; done;;\n*stop*) kill $(cat " + pid + "); while [ -e " + pid +
                               " ]; do sleep 0.05; done;;\nesac\n");
  settings.server.control = "systemd";
  settings.server.unit = "db@one.service";
  settings_at_end = server.settings();
  EXPECT_FALSE(control()->running());
  control()->start(Seconds(60));
  EXPECT_TRUE(control()->running());
  EXPECT_EQ(server.sql("SELECT 1"), "1\n");
  control()->stop(Seconds(60));
  EXPECT_FALSE(control()->running());
  EXPECT_NE(read_file(log).find("--no-ask-password start db@one.service"), std::string::npos) << read_file(log);

  put_program(
      "systemctl",
      "case \"$*\" in *show*) echo failed;; *start*) echo 'Job for db@one.service failed.' >&2; exit 1;; esac\n");
  try {
    control()->start(Seconds(60));
    FAIL() << "it started";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::unavailable) << e.what();
    EXPECT_NE(std::string(e.what()).find("Job for db@one.service failed"), std::string::npos) << e.what();
    EXPECT_NE(e.hint().find("journalctl"), std::string::npos);
  }
}

TEST_F(Control, ArgvAndEnvironment) {
  settings.server.command = {"/lib/ld.so", "--library-path", "/r", "/r/usr/sbin/mysqld", "--basedir=/r"};
  settings.defaults_file = "/x/my.cnf";
  const std::vector<std::string> expected = {
      "/lib/ld.so", "--library-path", "/r", "/r/usr/sbin/mysqld", "--defaults-file=/x/my.cnf", "--basedir=/r", "--a"};
  std::vector<std::string> argv = server_argv(settings, {"--a"});
  if (argv.back() == "--user=root") argv.pop_back();
  EXPECT_EQ(argv, expected);
  EXPECT_EQ(server_argv(settings, {}, "/private.cnf").at(4), "--defaults-file=/private.cnf");
  settings.server.command = {"mariadbd", "--defaults-file=/y.cnf"};
  EXPECT_EQ(server_argv(settings, {}).at(1), "--defaults-file=/y.cnf");
  EXPECT_EQ(server_argv(settings, {}, "/private.cnf").at(1), "--defaults-file=/private.cnf");

  ::setenv("NOTIFY_SOCKET", "/run/x", 1);
  ::setenv("GUESTAGENT_X", "1", 1);
  ::setenv("MYSQL_TCP_PORT", "1", 1);  // of whoever started the agent, not the server's
  ::setenv("TZ", "UTC", 1);
  bool zone = false;
  for (const std::string& entry : server_environment()) {
    EXPECT_FALSE(entry.starts_with("NOTIFY_SOCKET=") || entry.starts_with("GUESTAGENT_") || entry.starts_with("MYSQL_"))
        << entry;
    zone = zone || entry == "TZ=UTC";
  }
  EXPECT_TRUE(zone);
  ::unsetenv("NOTIFY_SOCKET");
  ::unsetenv("GUESTAGENT_X");
  ::unsetenv("MYSQL_TCP_PORT");
  ::unsetenv("TZ");
  settings = server.settings();
}

}  // namespace
}  // namespace guestagent::mysql

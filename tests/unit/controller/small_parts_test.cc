// The parts without a state of their own: picking hosts, reading bodies and addresses, judging a status.
#include <gmock/gmock.h>

#include "controller/api_requests.h"
#include "controller/http_client.h"
#include "controller/monitor.h"
#include "controller/provision.h"
#include "controller/views.h"
#include "tests/support/errors.h"

namespace guestagent::controller {
namespace {

using test::code_of;
using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;

Instance host(const std::string& id, const std::string& flavor, const std::string& zone, std::uint64_t size,
              const std::string& nics = "[]") {
  Instance out;
  out.id = id;
  out.host = {flavor, zone, size, nics};
  return out;
}

TEST(PickHosts, TakesWhatFitsWithTheLeastWaste) {
  const std::vector<Instance> spare = {host("a", "7", "x", 100), host("b", "7", "x", 10),
                                       host("c", "8", "x", 10), host("d", "7", "y", 20)};
  EXPECT_THAT(pick_hosts(spare, {}, 2), ElementsAre("a", "b"));
  EXPECT_THAT(pick_hosts(spare, {"7", "", 5, "[]"}, 3), ElementsAre("b", "d", "a"));
  EXPECT_THAT(pick_hosts(spare, {"7", "x", 50, "[]"}, 1), ElementsAre("a"));
}

TEST(PickHosts, HostsOnWhichSomethingFailedComeLast) {
  std::vector<Instance> spare = {host("a", "", "", 0), host("b", "", "", 0)};
  spare[0].last_error = "it failed";
  EXPECT_THAT(pick_hosts(spare, {}, 1), ElementsAre("b"));
}

TEST(PickHosts, EachWantedNicMustBeThere) {
  const std::vector<Instance> spare = {host("a", "", "", 0, R"([{"net-id":"1"}])"),
                                       host("b", "", "", 0, R"([{"net-id":"2"},{"net-id":"1"}])")};
  EXPECT_THAT(pick_hosts(spare, {"", "", 0, R"([{"net-id":"1"},{"net-id":"2"}])"}, 1), ElementsAre("b"));
}

TEST(PickHosts, SaysWhatIsMissing) {
  const std::vector<Instance> spare = {host("a", "7", "x", 100), host("b", "8", "y", 10)};
  EXPECT_THAT(error_of([&] {
                pick_hosts(spare, {"9", "", 0, "[]"}, 1);
              }).what(),
              HasSubstr("flavor 9: no free host has it (there are: 7, 8)"));
  EXPECT_THAT(error_of([&] {
                pick_hosts(spare, {"7", "y", 0, "[]"}, 1);
              }).what(),
              HasSubstr("only 0 of the 2 free hosts fit (flavor 7, availability_zone y)"));
  EXPECT_THAT(error_of([&] { pick_hosts({}, {}, 1); }).what(), HasSubstr("no registered host is free"));
  EXPECT_EQ(code_of([&] { pick_hosts(spare, {}, 3); }), "FAILED_PRECONDITION");
}

class Exec : public testing::Test {
 protected:
  std::string make(const std::string& script, Millis timeout = Seconds(20)) {
    ProvisionerSettings settings;
    settings.kind = "exec";
    settings.command = {"/bin/sh", "-c", script, "make-host"};
    settings.timeout = timeout;
    Instance instance = host("i-1", "7", "x", 5);
    instance.name = "slave1";
    return make_provisioner(settings)->make(instance, false, {});
  }
};

TEST_F(Exec, AnswersTheLastLineThatTheCommandPrints) {
  EXPECT_EQ(make("echo making; echo https://10.0.0.7:8443; echo"), "https://10.0.0.7:8443");
}

TEST_F(Exec, GetsTheInstanceAsJson) {
  TempDir dir(fs::temp_directory_path(), "exec");
  make("printf '%s %s' \"$1\" \"$2\" > " + (dir.path() / "got").string() + "; echo unix:/a");
  EXPECT_EQ(
      read_file(dir.path() / "got"),
      R"(create {"id":"i-1","name":"slave1","flavor":"7","availability_zone":"x","volume_size":5,"nics":[]})");
}

TEST_F(Exec, FailuresSayWhatTheCommandSaid) {
  EXPECT_THAT(error_of([&] { make("echo quota exceeded >&2; exit 3"); }).what(), HasSubstr("quota exceeded"));
  EXPECT_EQ(code_of([&] { make("sleep 60", Millis(100)); }), "DEADLINE_EXCEEDED");
  EXPECT_EQ(code_of([&] { make("echo not an address"); }), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of([&] { make("true"); }), "INVALID_ARGUMENT");
}

TEST(HttpAddress, Forms) {
  EXPECT_EQ(HttpAddress::parse("unix:/run/a.sock").path, "/run/a.sock");
  EXPECT_EQ(HttpAddress::parse("https://db-1.example:8443").port, "8443");
  EXPECT_EQ(HttpAddress::parse("https://[fd00::1]:8443/").host, "fd00::1");
  EXPECT_EQ(HttpAddress::parse("https://[fd00::1]:8443").host_header(), "[fd00::1]:8443");
  EXPECT_EQ(HttpAddress::parse("http://127.0.0.1:1").kind, HttpAddress::Kind::tcp);
  for (const char* bad : {"", "unix:", "unix:a.sock", "https://", "https://h", "https://h:", "https://h:0",
                          "https://h:65536", "https://h:1x", "https://u@h:1", "https://h/p:1",
                          "https://[fd00::1:8443", "http://10.0.0.1:80", "ftp://h:1", "h:1"}) {
    EXPECT_EQ(code_of([&] { HttpAddress::parse(bad); }), "INVALID_ARGUMENT") << bad;
  }
}

TEST(Judge, TheAgentsVerdictUnlessTheControllerKnowsBetter) {
  const auto verdict = [](const std::string& json, bool member = true, std::uint64_t expected = 1) {
    return judge(json, member, expected, Seconds(60)).verdict;
  };
  EXPECT_EQ(verdict(R"({"role":"replica","verdict":"healthy","lag_seconds":59.0,"source":{"server_id":1}})"),
            "healthy");
  EXPECT_EQ(verdict(R"({"role":"replica","verdict":"healthy","lag_seconds":61})"), "lagging");
  EXPECT_EQ(verdict(R"({"role":"replica","verdict":"broken","lag_seconds":61})"), "broken");
  EXPECT_EQ(verdict(R"({"role":"replica","verdict":"healthy","source":{"server_id":2}})"), "diverged");
  EXPECT_EQ(verdict(R"({"role":"replica","verdict":"healthy","source":{"server_id":2}})", true, 0),
            "healthy");
  EXPECT_EQ(verdict(R"({"role":"standalone","verdict":"standalone"})"), "broken");
  EXPECT_EQ(verdict(R"({"role":"source","verdict":"source"})"), "broken");
  EXPECT_EQ(verdict(R"({"role":"replica","verdict":"source","lag_seconds":1})"), "source");
  EXPECT_EQ(verdict(R"({"role":"standalone","verdict":"standalone"})", false), "standalone");
  EXPECT_EQ(verdict(R"({"new":"agent"})", false), "unknown");
  EXPECT_EQ(code_of([&] { verdict("[]"); }), "INTERNAL");
}

TEST(Percent, GoesFromNothingToAll) {
  Task task;
  task.kind = "replicate";
  task.step = "snapshot";
  std::vector<Replica> replicas(2);
  JobView half;
  half.done_bytes = 5;
  half.total_bytes = 10;
  EXPECT_EQ(task_percent(task, replicas, {{}, {}}, std::nullopt), 0);
  EXPECT_EQ(task_percent(task, replicas, {{}, {}}, half), 20);
  task.step = "replicas";
  EXPECT_EQ(task_percent(task, replicas, {{}, {}}, std::nullopt), 40);
  replicas[0].state = "succeeded";
  EXPECT_EQ(task_percent(task, replicas, {{}, half}, std::nullopt), 80);
  task.step = "done";
  task.state = "failed";
  EXPECT_EQ(task_percent(task, replicas, {{}, {}}, std::nullopt), 100);
}

}  // namespace
}  // namespace guestagent::controller

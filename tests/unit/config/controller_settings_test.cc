// config/controller.yaml, its parser and its defaults.
#include "config/controller_settings.h"

#include <gmock/gmock.h>

#include <regex>
#include <sstream>

#include "base/file.h"
#include "tests/support/errors.h"

namespace guestagent {
namespace {

using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;

std::string shipped() {
  return read_file(fs::path(GUESTAGENT_SOURCE_DIR) / "config" / "controller.yaml");
}

// Everything that can be told apart, as one text.
std::string words(const ControllerSettings& s) {
  std::ostringstream out;
  out << s.socket << s.socket_mode << s.allow_users.size() << s.allow_groups.size() << s.tls.client_crl
      << s.agents.socket_dirs.size() << s.agents.socket_dirs.at(0) << s.agents.socket_users.size()
      << s.agents.allow_plain_http;
  out << s.listen << s.tls.certificate << s.tls.key << s.tls.client_ca << s.tls.allow_names.size() << s.token_file
      << s.state << static_cast<int>(s.log_level) << static_cast<int>(s.log_format) << s.agents.ca_file
      << s.agents.certificate << s.agents.key;
  for (const Millis m : {s.agents.call_timeout, s.agents.lost_after, s.agents.busy_timeout, s.agents.job_poll,
                         s.provisioner.timeout, s.monitor.interval, s.monitor.lag_limit, s.monitor.history}) {
    out << " " << m.count();
  }
  out << " " << s.agents.parallel_attaches << s.provisioner.kind << s.provisioner.command.size()
      << s.provisioner.cleanup_command.size() << " " << s.monitor.event_days << " " << s.monitor.task_days;
  return out.str();
}

TEST(ControllerFile, AsShippedAndWithEveryKeyUncommentedItSaysTheDefaults) {
  EXPECT_EQ(words(parse_controller_settings(shipped(), "f")), words(ControllerSettings{}));
  EXPECT_EQ(words(parse_controller_settings("", "f")), words(ControllerSettings{}));
  const std::string all = std::regex_replace(shipped(), std::regex("(^|\n)( *)#([a-z_]+:)"), "$1$2$3");
  EXPECT_NE(all, shipped());
  EXPECT_EQ(words(parse_controller_settings(all, "f")), words(ControllerSettings{}));
}

TEST(ControllerFile, EveryKeyIsDocumented) {
  const std::string text = shipped();
  for (const char* key : {"socket",
                          "socket_mode",
                          "allow_users",
                          "allow_groups",
                          "client_crl",
                          "socket_dirs",
                          "socket_users",
                          "allow_plain_http",
                          "listen",
                          "certificate",
                          "key",
                          "client_ca",
                          "allow_names",
                          "token_file",
                          "state",
                          "level",
                          "format",
                          "ca_file",
                          "call_timeout",
                          "lost_after",
                          "busy_timeout",
                          "job_poll",
                          "parallel_attaches",
                          "kind",
                          "command",
                          "cleanup_command",
                          "timeout",
                          "interval",
                          "lag_limit",
                          "history",
                          "event_days",
                          "task_days"}) {
    EXPECT_THAT(text, HasSubstr("#" + std::string(key) + ":"));
  }
}

TEST(ControllerFile, Values) {
  const ControllerSettings s = parse_controller_settings(R"(
controller:
  listen: "[::1]:9000"
  token_file: /t
  agents: {parallel_attaches: 7, lost_after: 1m30s}
  provisioner: {kind: exec, command: [/usr/bin/make-host, --fast]}
)",
                                                         "f");
  EXPECT_EQ(s.listen, "[::1]:9000");
  EXPECT_EQ(s.agents.parallel_attaches, 7u);
  EXPECT_EQ(s.agents.lost_after, Seconds(90));
  EXPECT_THAT(s.provisioner.command, ElementsAre("/usr/bin/make-host", "--fast"));
}

std::string refused(const std::string& yaml) {
  return error_of([&] { parse_controller_settings(yaml, "c.yaml"); }).what();
}

TEST(ControllerFile, NothingListensBeyondThisHostWithoutTlsAndAccess) {
  EXPECT_THAT(refused("controller:\n  listen: 0.0.0.0:8779\n"), HasSubstr("tls.certificate"));
  EXPECT_THAT(refused("controller:\n  listen: 0.0.0.0:8779\n"), HasSubstr("token_file"));
  EXPECT_THAT(refused("controller:\n  listen: \"[::]:8779\"\n  token_file: /t\n"), HasSubstr("tls.certificate"));
  EXPECT_THAT(refused("controller:\n  listen: 10.0.0.1:8779\n  tls: {certificate: /c, key: /k}\n"),
              HasSubstr("token_file"));
  parse_controller_settings(
      "controller:\n  listen: 0.0.0.0:8779\n  token_file: /t\n  tls: {certificate: /c, key: /k}\n", "f");
  parse_controller_settings("controller:\n  listen: 0.0.0.0:8779\n  tls: {certificate: /c, key: /k, client_ca: /ca}\n",
                            "f");
}

TEST(ControllerFile, TcpIsOffAndNeedsATokenOrCertificatesOnLoopbackToo) {
  EXPECT_EQ(parse_controller_settings("", "f").listen, "");
  for (const std::string address : {"127.0.0.1:8779", "127.3.2.1:1", "\"[::1]:8779\""}) {
    EXPECT_THAT(refused("controller:\n  listen: " + address + "\n"), HasSubstr("token_file or tls.client_ca"))
        << address;
    EXPECT_EQ(refused("controller:\n  listen: " + address + "\n").find("tls.certificate and"), std::string::npos);
    parse_controller_settings("controller:\n  listen: " + address + "\n  token_file: /t\n", "f");
    parse_controller_settings(
        "controller:\n  listen: " + address + "\n  tls: {certificate: /c, key: /k, client_ca: /ca, client_crl: /r}\n",
        "f");
  }
  EXPECT_THAT(refused("controller:\n  tls: {certificate: /c, key: /k, client_crl: /r}\n"), HasSubstr("tls.client_ca"));
  EXPECT_THAT(refused("controller:\n  tls: {certificate: /c, key: /k}\n"), HasSubstr("controller.listen"));
}

TEST(ControllerFile, DirectoriesOfSocketsAreAbsolute) {
  for (const char* bad : {"run", "/", "/run/../tmp", "/run/./x"}) {
    EXPECT_THAT(refused("controller:\n  agents: {socket_dirs: [\"" + std::string(bad) + "\"]}\n"),
                HasSubstr("controller.agents.socket_dirs"))
        << bad;
  }
  parse_controller_settings("controller:\n  agents: {socket_dirs: [/a, /b/c]}\n", "f");
}

TEST(ControllerFile, MistakesNameTheirPathAndLine) {
  EXPECT_THAT(refused("controller:\n  lisen: x\n"), HasSubstr("controller.lisen (line 2)"));
  EXPECT_THAT(refused("controller:\n  agents:\n    lost_after: soon\n"),
              HasSubstr("controller.agents.lost_after (line 3)"));
  EXPECT_THAT(refused("controller:\n  provisioner:\n    kind: exec\n"), HasSubstr("controller.provisioner.command"));
  EXPECT_THAT(refused("controller:\n  agents:\n    certificate: /c\n"), HasSubstr("controller.agents.key"));
  EXPECT_THAT(refused("controller:\n  listen: localhost:1\n"), HasSubstr("controller.listen (line 2)"));
  EXPECT_THAT(refused("controller:\n  monitor: {interval: 10ms, history: 1d}\n"),
              HasSubstr("controller.monitor.history"));
}

TEST(ListenAddress, Forms) {
  EXPECT_TRUE(parse_listen_address("127.0.0.1:1").loopback());
  EXPECT_TRUE(parse_listen_address("127.9.9.9:1").loopback());
  EXPECT_TRUE(parse_listen_address("[::1]:1").loopback());
  EXPECT_FALSE(parse_listen_address("0.0.0.0:1").loopback());
  EXPECT_FALSE(parse_listen_address("[::]:1").loopback());
  EXPECT_EQ(parse_listen_address("127.0.0.1:0").port, 0);
  for (const char* bad :
       {"", "127.0.0.1", ":80", "host:80", "::1:80", "[::1]", "127.0.0.1:65536", "127.0.0.1:x", "[127.0.0.1]:1"}) {
    EXPECT_EQ(test::code_of([&] { parse_listen_address(bad); }), "INVALID_ARGUMENT") << bad;
  }
}

}  // namespace
}  // namespace guestagent

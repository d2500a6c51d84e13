#include "base/host_name.h"

#include <gmock/gmock.h>

#include <string>

#include "base/error.h"

namespace guestagent {
namespace {

TEST(HostName, TakesNamesAndAddresses) {
  for (const std::string good :
       {"db1", "db1.example.org", "db1.example.org.", "a_b", "_sql", "X-1", "192.0.2.7", "127.0.0.1", "::1",
        "2001:db8::7", "fe80::1%eth0", "::ffff:192.0.2.7", "1a", "3com.example", "0xg"}) {
    ASSERT_TRUE(HostName::parse(good)) << good;
    EXPECT_EQ(HostName::parse(good)->text(), good);
  }
  EXPECT_TRUE(HostName::parse(std::string(63, 'a') + ".b"));
}

TEST(HostName, RefusesAllElse) {
  const std::string long_name = [] {
    std::string out;
    while (out.size() < 254) out += "abcdefghi.";
    return out;
  }();
  for (const std::string& bad : {std::string(),
                                 std::string("host=127.0.0.1;port=1;plugin-dir=/tmp;default-auth=evil;x=:"),
                                 std::string("a=b"),
                                 std::string("a;b"),
                                 std::string("a b"),
                                 std::string("a\nplugin_load=x"),
                                 std::string("x', MASTER_PORT=1"),
                                 std::string("x,127.0.0.1"),
                                 std::string("a/b"),
                                 std::string("a\\b"),
                                 std::string("a\"b"),
                                 std::string("a#b"),
                                 std::string("u@h"),
                                 std::string("[::1]"),
                                 std::string("::1%"),
                                 std::string("::1%a/b"),
                                 std::string("::1%aaaaaaaaaaaaaaaa"),
                                 std::string(":::"),
                                 std::string("1:2"),
                                 std::string("db1:3306"),
                                 std::string("127.1"),
                                 std::string("0x7f.1"),
                                 std::string("a.0x7F"),
                                 std::string("db.1"),
                                 std::string("2130706433"),
                                 std::string("256.0.0.1"),
                                 std::string("1.2.3.4."),
                                 std::string("."),
                                 std::string("a..b"),
                                 std::string(".a"),
                                 std::string("-a"),
                                 std::string("a-"),
                                 std::string("a.-b"),
                                 std::string("--socket"),
                                 std::string("caf\xC3\xA9"),
                                 std::string("a\0b", 3),
                                 std::string("127.0.0.1\0", 10),
                                 long_name,
                                 std::string(64, 'a'),
                                 std::string("%"),
                                 std::string("*"),
                                 std::string("{a}"),
                                 std::string("$HOME")}) {
    EXPECT_FALSE(HostName::parse(bad)) << bad;
    EXPECT_THROW(HostName::require("x", bad), Error) << bad;
  }
}

TEST(HostName, EveryByteThatIsNoneOfAHostsIsRefused) {
  const std::string allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
  for (int c = 0; c < 256; ++c) {
    const std::string name = std::string("a") + static_cast<char>(c) + "b";
    EXPECT_EQ(HostName::parse(name).has_value(), allowed.find(static_cast<char>(c)) != std::string::npos) << c;
  }
}

TEST(HostName, LoopbackIsAnAddressNotABeginning) {
  for (const char* local : {"localhost", "127.0.0.1", "127.255.1.2", "::1", "::ffff:127.0.0.1"}) {
    EXPECT_TRUE(HostName::parse(local)->is_loopback()) << local;
  }
  for (const char* stranger : {"127.evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.localhost",
                               "128.0.0.1", "::2", "::ffff:128.0.0.1", "LOCALHOST"}) {
    EXPECT_FALSE(HostName::parse(stranger)->is_loopback()) << stranger;
  }
}

TEST(HostName, SaysWhatWasWrongInOneLine) {
  try {
    HostName::require("snapshot.master.host", "a\n=b");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::invalid_argument);
    EXPECT_STREQ(e.what(), "snapshot.master.host: \"a?=b\" is neither a host name nor an address");
  }
}

TEST(HostPort, TakesWhatAHostHeaderHas) {
  EXPECT_EQ(HostPort::parse("db1")->port, std::nullopt);
  EXPECT_EQ(HostPort::parse("db1:80")->port, 80);
  EXPECT_EQ(HostPort::parse("[::1]")->host.text(), "::1");
  EXPECT_EQ(HostPort::parse("[::1]:8779")->port, 8779);
  EXPECT_EQ(HostPort::parse("[::1]:8779")->host.in_url(), "[::1]");
  for (const char* bad : {"", ":80", "db1:", "db1:0", "db1:65536", "db1:+1", "db1: 80", "db1:80x", "[::1].evil",
                          "[::1]x:80", "[::1", "[db1]", "[127.0.0.1]", "::1", "a:b:c", "127.0.0.1:80:80", "[::1]:"}) {
    EXPECT_FALSE(HostPort::parse(bad)) << bad;
  }
}

}  // namespace
}  // namespace guestagent

#include "net/url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace guestagent {
namespace {

using testing::ElementsAre;

TEST(Url, IsNormalised) {
  const auto url = parse_url("HTTPS://Store.Example.COM//v1/AUTH_%61//c%20d/");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->scheme, "https");
  EXPECT_EQ(url->host, "store.example.com");
  EXPECT_EQ(url->port, 443);
  EXPECT_THAT(url->path, ElementsAre("v1", "AUTH_a", "c d"));
  EXPECT_EQ(url->origin(), "https://store.example.com");
  EXPECT_EQ(parse_url("http://h:80/x"), parse_url("http://H/%78"));
  EXPECT_EQ(parse_url("http://[::1]:8080")->origin(), "http://[::1]:8080");
}

TEST(Url, RefusesWhatServersReadInDifferentWays) {
  for (const char* bad : {"",
                          "h/x",
                          "ftp://h/x",
                          "file:///x",
                          "http://",
                          "http:///x",
                          "http://user@h/x",
                          "http://u:p@h/x",
                          "http://h/x?y",
                          "http://h/x#y",
                          "http://h/../x",
                          "http://h/%2e%2e/x",
                          "http://h/./x",
                          "http://h/%2Fx",
                          "http://h/%00",
                          "http://h/%",
                          "http://h/%1",
                          "http://h/%gg",
                          "http://h:0/x",
                          "http://h:65536/x",
                          "http://h:8o/x",
                          "http://h:-1/x",
                          "http://h h/x",
                          "http://h\\x/",
                          "http://[::1/x",
                          "http://[evil.example]/x",
                          "http://h\n/x",
                          "http://%68/x"}) {
    EXPECT_FALSE(parse_url(bad)) << bad;
  }
  EXPECT_FALSE(parse_url("http://h/" + std::string(9000, 'x')));
}

TEST(Url, BelowMeansSameOriginAndLongerPath) {
  const auto root = *parse_url("http://h:8080/v1/AUTH_a/c/p");
  EXPECT_THAT(*path_below(root, *parse_url("http://H:8080/v1/AUTH_a/c/p/id/x")), ElementsAre("id", "x"));
  for (const char* other :
       {"http://h:8080/v1/AUTH_a/c/p", "http://h:8080/v1/AUTH_a/c/p2/x", "http://h:8080/v1/AUTH_b/c/p/x",
        "http://h:8081/v1/AUTH_a/c/p/x", "https://h:8080/v1/AUTH_a/c/p/x", "http://h2:8080/v1/AUTH_a/c/p/x"}) {
    EXPECT_FALSE(path_below(root, *parse_url(other))) << other;
  }
}

TEST(Url, EncodesAndDecodes) {
  std::string all;
  for (int c = 0; c < 256; ++c) all += static_cast<char>(c);
  EXPECT_EQ(percent_decode(percent_encode(all, false)), all);
  EXPECT_EQ(percent_decode(percent_encode(all, true)), all);
  EXPECT_EQ(percent_encode("a b/~c\xff", true), "a%20b/~c%FF");
  EXPECT_EQ(percent_encode("a/b", false), "a%2Fb");
}

}  // namespace
}  // namespace guestagent

#include "net/http_server.h"

#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/support/errors.h"

namespace guestagent {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(Callers, ATokenMakesSomebodyOfNobodyOnly) {
  const Secret token("right");
  const Caller nobody{Caller::Kind::nobody, "10.0.0.1"}, local{Caller::Kind::local_user, "uid 7"};
  EXPECT_FALSE(nobody.proven());
  EXPECT_EQ(with_token(nobody, "Bearer right", token).name, "token at 10.0.0.1");
  EXPECT_TRUE(with_token(nobody, "Bearer right", token).proven());
  for (const char* wrong : {"", "Bearer ", "Bearer righ", "Bearer rightx", "bearer right", "right", "Bearer wrong"})
    EXPECT_FALSE(with_token(nobody, wrong, token).proven()) << wrong;
  EXPECT_FALSE(with_token(nobody, "Bearer ", Secret("")).proven()) << "no token is no way in";
  EXPECT_EQ(with_token(local, "Bearer right", token).name, "uid 7");
}

class HttpServerTest : public testing::Test {
 protected:
  void start(HttpServerSettings settings = {}) {
    settings.local = {"test", dir_.path() / "socket", 0600, {}, {}};
    settings.listen_key = "test.listen";
    settings.listen = "127.0.0.1:0";
    settings.tls.strangers_speak = true;
    settings.token = Secret("right");
    server_.emplace(
        settings,
        [](const ReceivedRequest& request) {
          return HttpReply{request.caller.proven() ? 200 : 401, "text/plain",
                           request.path + "|" + request.query_value("q") + "|" + request.not_once};
        },
        [](HttpFault, const std::string&) { return std::nullopt; });
    server_->start();
  }
  UniqueFd dial() const {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(server_->port());
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
    const timeval patience{20, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
  }
  static std::string all(int fd) {
    std::string out;
    char some[4096];
    ssize_t got = 0;
    while ((got = ::recv(fd, some, sizeof some, 0)) > 0) out.append(some, static_cast<std::size_t>(got));
    return got == 0 ? out : out + "<not closed>";
  }
  std::string ask(const std::string& target, const std::string& fields = "") const {
    const UniqueFd fd = dial();
    const std::string text = "GET " + target + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + fields + "\r\n";
    EXPECT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
    return all(fd.get());
  }

  TempDir dir_{fs::temp_directory_path(), "http-server-"};
  std::optional<HttpServer> server_;
};

TEST_F(HttpServerTest, TheHandlerSeesWhoAsksAndForWhat) {
  start();
  const std::string token = "Authorization: Bearer right\r\n";
  EXPECT_THAT(ask("/a%20b%2?q=x+%79&r=1", token),
              testing::AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("/a b%2|x y|")));
  EXPECT_THAT(ask("http://b/c", token), HasSubstr("/c||"));
  EXPECT_THAT(ask("/"), StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(ask("/", "Host: b\r\n"), HasSubstr("/||Host"));
  EXPECT_THAT(ask("/", token + token), HasSubstr("/||Authorization"));
}

TEST_F(HttpServerTest, AStrangerTooManyTakesThePlaceOfTheOldest) {
  HttpServerSettings settings;
  settings.limits.strangers_of_one = 2;
  start(settings);
  const UniqueFd first = dial(), second = dial(), third = dial();
  EXPECT_EQ(all(first.get()), "");
  EXPECT_THAT(ask("/", "Authorization: Bearer right\r\n"), StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(all(second.get()), "");
}

TEST_F(HttpServerTest, APortThatIsTakenIsTheRolesError) {
  start();
  HttpServerSettings settings;
  settings.local = {"test", dir_.path() / "other", 0600, {}, {}};
  settings.listen = "127.0.0.1:" + std::to_string(server_->port());
  settings.listen_error = [](std::string_view, int) { return Error(Code::unavailable, "taken"); };
  EXPECT_EQ(test::code_of([&] { HttpServer(settings, nullptr, nullptr); }), "UNAVAILABLE");
}

}  // namespace
}  // namespace guestagent

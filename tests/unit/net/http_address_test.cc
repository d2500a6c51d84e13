// Where requests go: addresses, and names that nobody knows.
#include "net/http_address.h"

#include <gmock/gmock.h>

#include <atomic>
#include <future>
#include <thread>

#include "tests/support/errors.h"

namespace guestagent {
namespace {

using test::code_of;

TEST(HttpAddress, Forms) {
  EXPECT_EQ(HttpAddress::parse("unix:/run/a.sock").path, "/run/a.sock");
  EXPECT_EQ(HttpAddress::parse("https://db-1.example:8443").port, "8443");
  EXPECT_EQ(HttpAddress::parse("https://[fd00::1]:8443/").host, "fd00::1");
  EXPECT_EQ(HttpAddress::parse("https://[fd00::1]:8443").host_header(), "[fd00::1]:8443");
  EXPECT_EQ(HttpAddress::parse("http://127.0.0.1:1").kind, HttpAddress::Kind::tcp);
  for (const char* bad :
       {"", "unix:", "unix:a.sock", "https://", "https://h", "https://h:", "https://h:0", "https://h:65536",
        "https://h:1x", "https://u@h:1", "https://h/p:1", "https://[fd00::1:8443", "http://10.0.0.1:80", "ftp://h:1",
        "h:1",
        // What only looks like this host, and what is no host at all.
        "http://127.evil.example:80", "http://127.0.0.1.evil.example:80", "http://localhost.evil.example:80",
        "http://[::1].evil:80", "http://127.1:80", "http://0x7f.0.0.1:80", "http://2130706433:80", "http://0.0.0.0:80",
        "http://[::]:80", "https://a;b:1", "https://a=b:1", "https://a b:1", "https://a\n:1", "https://-a:1",
        "https://a..b:1", "https://a:1:2", "https://[a]:1"}) {
    EXPECT_EQ(code_of([&] { HttpAddress::parse(bad); }), "INVALID_ARGUMENT") << bad;
  }
}

TEST(HttpAddress, TellsARequestWhereToGo) {
  const HttpRequest local = HttpAddress::parse("unix:/run/a.sock").request("ask", "GET", "/x?y=1");
  EXPECT_EQ(local.url, "http://agent/x?y=1");
  EXPECT_EQ(local.socket, "/run/a.sock");
  const HttpRequest remote = HttpAddress::parse("https://[fd00::1]:8443").request("ask", "POST", "/rpc");
  EXPECT_EQ(remote.url, "https://[fd00::1]:8443/rpc");
  EXPECT_EQ(remote.method, "POST");
  EXPECT_TRUE(remote.socket.empty());
}

// A resolver that does not answer: nobody waits for it longer than for the exchange, and a stop is heard.
TEST(HttpClient, ANameThatIsNotFoundOutHoldsNobody) {
  std::promise<void> over;
  const std::shared_future<void> ends(over.get_future());
  const auto waiting = std::make_shared<std::atomic<int>>(0);  // a thread of it may begin after the test
  HttpClientOptions options;
  options.resolver = [waiting, ends](const std::string&) -> std::vector<std::string> {
    ++*waiting;
    ends.wait_for(Seconds(60));
    --*waiting;
    return {"127.0.0.1"};
  };
  HttpClient client(options);
  const auto ask = [&](Millis timeout, std::stop_token stop = {}) {
    HttpRequest request = HttpAddress::parse("https://dead.example:8443").request("ask", "GET", "/");
    request.timeout = timeout;
    client.send(request, std::move(stop));
  };
  EXPECT_EQ(code_of([&] { ask(Millis(50)); }), "DEADLINE_EXCEEDED");
  std::stop_source stop;
  std::jthread stops([&] { stop.request_stop(); });
  EXPECT_EQ(code_of([&] { ask(Seconds(60), stop.get_token()); }), "CANCELLED");
  for (int n = 0; n < 2000 && *waiting == 0; ++n) std::this_thread::sleep_for(Millis(10));
  EXPECT_GE(*waiting, 1);
  // Nor do they pile up without an end.
  std::string last;
  for (int n = 0; n < 80; ++n) last = code_of([&] { ask(Millis(1)); });
  EXPECT_EQ(last, "UNAVAILABLE");
  over.set_value();
}

}  // namespace
}  // namespace guestagent

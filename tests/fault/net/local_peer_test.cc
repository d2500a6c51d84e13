// The client at a Unix socket: who serves it, answers that come as they are made, and ends in the middle.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "base/file.h"
#include "base/unique_fd.h"
#include "net/http_client.h"

namespace guestagent {
namespace {

using testing::HasSubstr;

// Takes one connection after the other, and answers each with the pieces once a request's head has come.
class LocalPeer {
 public:
  explicit LocalPeer(std::vector<std::string> pieces, bool hang = false)
      : dir_(fs::temp_directory_path(), "peer"), pieces_(std::move(pieces)), hang_(hang) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, socket().c_str());
    listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 8), 0);
    thread_ = std::jthread([this] { serve(); });
  }
  ~LocalPeer() { ::shutdown(listener_.get(), SHUT_RDWR); }
  fs::path socket() const { return dir_.path() / "peer.sock"; }
  unsigned requests() const { return requests_; }

 private:
  void serve() {
    for (;;) {
      const UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd) return;
      std::string head;
      char buffer[4096];
      ssize_t n;
      while (head.find("\r\n\r\n") == std::string::npos && (n = ::recv(fd.get(), buffer, sizeof buffer, 0)) > 0)
        head.append(buffer, static_cast<std::size_t>(n));
      if (head.empty()) continue;
      ++requests_;
      for (const std::string& piece : pieces_)
        if (::send(fd.get(), piece.data(), piece.size(), MSG_NOSIGNAL) < 0) break;
      while (hang_ && ::recv(fd.get(), buffer, sizeof buffer, 0) > 0) {
      }
    }
  }
  TempDir dir_;
  std::vector<std::string> pieces_;
  const bool hang_;
  std::atomic<unsigned> requests_{0};
  UniqueFd listener_;
  std::jthread thread_;
};

HttpRequest ask(const LocalPeer& peer) {
  HttpRequest out{.what = "ask", .method = "GET", .url = "http://agent/x"};
  out.socket = peer.socket();
  return out;
}

HttpError error_of(HttpClient& client, const HttpRequest& request, std::stop_token stop = {}) {
  try {
    client.send(request, std::move(stop));
  } catch (const HttpError& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return HttpError(Code::internal, "none", {}, false, {});
}

const std::string kHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

TEST(LocalPeerTest, AnswersAtItsSocket) {
  LocalPeer peer({"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"});
  HttpClient client({});
  EXPECT_EQ(client.send(ask(peer), {}).body.text(), "hi");
  EXPECT_EQ(client.send(ask(peer), {}).body.text(), "hi") << "the connection that was kept is gone by now";
}

TEST(LocalPeerTest, IsAskedOnlyWhereATrustedUserServesIt) {
  LocalPeer peer({"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"});
  HttpClientOptions options;
  options.socket_users = {::geteuid() + 1};
  options.hints.socket_user = "name it";
  HttpClient wary(options);
  const HttpError e = error_of(wary, ask(peer));
  EXPECT_EQ(e.code(), Code::permission_denied);
  EXPECT_FALSE(e.retryable());
  EXPECT_THAT(e.what(), HasSubstr("a process of user " + std::to_string(::geteuid()) + " serves it"));
  EXPECT_EQ(e.hint(), "name it");
  EXPECT_EQ(peer.requests(), 0U) << "nothing may be said to it";
  options.socket_users->push_back(::geteuid());
  HttpClient knowing(options);
  EXPECT_EQ(knowing.send(ask(peer), {}).body.text(), "hi");
}

TEST(LocalPeerTest, NobodyThereIsUnavailable) {
  HttpClient client({});
  const TempDir dir(fs::temp_directory_path(), "peer");
  HttpRequest request{.what = "ask", .method = "GET", .url = "http://agent/"};
  request.socket = dir.path() / "nobody.sock";
  const HttpError e = error_of(client, request);
  EXPECT_EQ(e.code(), Code::unavailable);
  EXPECT_THAT(e.what(), HasSubstr("ask: unix:" + request.socket.string() + ": "));
  request.socket = "/" + std::string(200, 'x');
  EXPECT_EQ(error_of(client, request).code(), Code::invalid_argument);
}

TEST(LocalPeerTest, ABodyIsPassedOnAsItComes) {
  LocalPeer peer({kHead, "one\n", "two\n"});
  HttpClient client({});
  HttpRequest request = ask(peer);
  request.max_answer = 1;  // is for what is kept
  std::string text;
  request.on_body = [&](Bytes data) {
    text.append(reinterpret_cast<const char*>(data.data()), data.size());
    return true;
  };
  EXPECT_TRUE(client.send(request, {}).body.empty());
  EXPECT_EQ(text, "one\ntwo\n");
}

TEST(LocalPeerTest, WhoHasEnoughOfABodyIsDone) {
  LocalPeer peer({kHead, "one\n"}, true);
  HttpClient client({});
  HttpRequest request = ask(peer);
  request.on_body = [&](Bytes) { return false; };
  EXPECT_EQ(client.send(request, {}).status, 200);
  request.on_body = [&](Bytes) -> bool { throw std::runtime_error("broken"); };
  EXPECT_THROW(client.send(request, {}), std::runtime_error);
}

TEST(LocalPeerTest, ATimeoutIsForAllOfIt) {
  HttpClientOptions options;
  options.stall = Millis(0);
  HttpClient client(options);
  for (const std::vector<std::string>& said : {std::vector<std::string>{}, std::vector<std::string>{kHead, "one"}}) {
    LocalPeer peer(said, true);
    HttpRequest request = ask(peer);
    request.timeout = Millis(50);
    const HttpError e = error_of(client, request);
    EXPECT_EQ(e.code(), Code::deadline_exceeded);
    EXPECT_TRUE(e.retryable());
  }
}

TEST(LocalPeerTest, AnEndWithinAnAnswerIsAnError) {
  LocalPeer peer({"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"});
  HttpClient client({});
  EXPECT_EQ(error_of(client, ask(peer)).brief(), "short body");
}

}  // namespace
}  // namespace guestagent

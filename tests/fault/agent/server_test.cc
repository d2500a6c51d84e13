// Strangers at the agent's socket: hostile bytes, slow and vanishing clients, too many of them, the wrong
// user.
#include "agent/server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>

#include "agent/client.h"
#include "tests/support/gate.h"
#include "tests/unit/agent/agent_fixture.h"

namespace guestagent {
namespace {

using test::Gate;
using testing::HasSubstr;
using testing::StartsWith;

UniqueFd dial(const fs::path& socket) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket.c_str(), socket.native().size() + 1);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0) << std::strerror(errno);
  return fd;
}

// What of it the peer took.
std::size_t send_all(int fd, std::string_view bytes) {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n = ::send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) break;
    sent += static_cast<std::size_t>(n);
  }
  return sent;
}

// Until the peer closes, at most `patience`.
std::string receive_all(int fd, Millis patience = Millis(20000)) {
  std::string text;
  char buffer[8192];
  const auto until = std::chrono::steady_clock::now() + patience;
  for (;;) {
    const auto left = std::chrono::duration_cast<Millis>(until - std::chrono::steady_clock::now()).count();
    pollfd look{fd, POLLIN, 0};
    if (left <= 0 || ::poll(&look, 1, static_cast<int>(left)) <= 0) return text + "<the peer did not close>";
    const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
    if (n <= 0) return text;
    text.append(buffer, static_cast<std::size_t>(n));
  }
}

class ServerTest : public test::AgentFixture {
 protected:
  ~ServerTest() override { stop(); }

  void start(ServerLimits limits) {
    server_.emplace(
        listen_, dispatcher, jobs, [] { return "metrics 1\n"; }, limits);
    thread_ = std::jthread([this](std::stop_token stopped) { server_->run(stopped); });
  }
  void start() { start({.request_bytes = 65536, .request_timeout = Millis(10000), .connections = 8, .reserved = 0}); }
  void stop() {
    jobs.shut_down();
    if (thread_.joinable()) {
      thread_.request_stop();
      thread_.join();
    }
    server_.reset();
  }

  std::string exchange(std::string_view bytes, bool half_close = false) {
    const UniqueFd fd = dial(listen_.socket);
    send_all(fd.get(), bytes);
    if (half_close) ::shutdown(fd.get(), SHUT_WR);
    return receive_all(fd.get());
  }
  std::string get(const std::string& path, const std::string& method = "GET") {
    return exchange(method + " " + path + " HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
  }
  std::string post(const std::string& body) {
    return exchange("POST /rpc HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: " +
                    std::to_string(body.size()) + "\r\n\r\n" + body);
  }
  // The server is there and well.
  void expect_well() { EXPECT_THAT(get("/healthz"), StartsWith("HTTP/1.1 200 ")); }

  AgentSettings listen_ = [this] {
    AgentSettings made = settings.agent;
    made.socket = dir.path() / "agent.sock";
    return made;
  }();
  std::optional<Server> server_;
  std::jthread thread_;
};

TEST_F(ServerTest, AnswersItsRoutes) {
  start();
  EXPECT_THAT(get("/healthz"), HasSubstr("\"status\":\"ok\""));
  EXPECT_THAT(get("/metrics"), HasSubstr("metrics 1"));
  EXPECT_THAT(post(R"({"jsonrpc":"2.0","id":9,"method":"list_jobs"})"),
              HasSubstr(R"({"jsonrpc":"2.0","id":9,"result":{"jobs":[]}})"));
  EXPECT_THAT(post(R"({"jsonrpc":"2.0","method":"list_jobs"})"), StartsWith("HTTP/1.1 204 "));
  EXPECT_THAT(get("/"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(get("/jobs/none/events"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(get("/jobs/../events"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(get("/rpc"), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(get("/nothing", "HEAD"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(get("/healthz", "POST"), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(get("/healthz", "DELETE"), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(get("/healthz?x=1"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(ServerTest, NoWebPageIsServed) {
  start();
  for (const std::string route : {"GET /healthz", "GET /metrics", "POST /rpc", "GET /jobs/none/events"}) {
    for (const char* origin : {"http://evil.example", "null", "http://agent", ""}) {
      EXPECT_THAT(exchange(route + " HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: 0\r\nOrigin: " +
                           origin + "\r\n\r\n"),
                  StartsWith("HTTP/1.1 403 "));
    }
  }
  expect_well();
}

TEST_F(ServerTest, HeadIsGetWithoutABody) {
  start();
  for (const char* path : {"/healthz", "/metrics"}) {
    const std::string answer = get(path, "HEAD");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
    EXPECT_THAT(answer, HasSubstr("Content-Length: "));
    EXPECT_TRUE(answer.ends_with("\r\n\r\n")) << answer;
  }
  EXPECT_THAT(get("/rpc", "HEAD"), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(get("http://agent/healthz"), StartsWith("HTTP/1.1 200 ")) << "a proxy's form of the target";
}

TEST_F(ServerTest, KeepsAConnectionForTheNextRequest) {
  start();
  const std::string one = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
  const std::string text = exchange(one + one + "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  int answers = 0;
  for (std::size_t at = 0; (at = text.find("HTTP/1.1 200 ", at)) != std::string::npos; ++at) ++answers;
  EXPECT_EQ(answers, 3);
}

TEST_F(ServerTest, ContinuesWhereAClientAsks) {
  start();
  const std::string body = R"({"jsonrpc":"2.0","id":9,"method":"list_jobs"})";
  EXPECT_THAT(
      exchange("POST /rpc HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: " +
               std::to_string(body.size()) + "\r\n\r\n" + body),
      testing::AllOf(StartsWith("HTTP/1.1 100 "), HasSubstr("HTTP/1.1 200 ")));
}

TEST_F(ServerTest, WhatIsNoHttpIsRefused) {
  start();
  for (const std::string bytes :
       {"\r\n\r\n\r\n", "hello\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
        "POST /rpc HTTP/1.1\r\nContent-Length: x\r\n\r\n", "POST /rpc HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST /rpc HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "POST /rpc HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST /rpc HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "GET /\0 HTTP/1.1\r\n\r\n"}) {
    const std::string answer = exchange(bytes, true);
    EXPECT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 4")) << bytes << answer;
    EXPECT_THAT(answer, testing::Not(HasSubstr("did not close"))) << bytes;
  }
  expect_well();
}

TEST_F(ServerTest, RandomBytesAreRefused) {
  start();
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    std::string bytes(random() % 3000, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    if (i % 3 == 0)
      bytes = "POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(bytes.size()) + "\r\n\r\n" + bytes;
    const std::string answer = exchange(bytes, true);
    EXPECT_THAT(answer, testing::Not(HasSubstr("did not close"))) << i;
  }
  expect_well();
}

TEST_F(ServerTest, EveryCutRequestEnds) {
  start();
  const std::string whole = "POST /rpc HTTP/1.1\r\nHost: agent\r\nContent-Length: 45\r\n\r\n" +
                            std::string(R"({"jsonrpc":"2.0","id":9,"method":"list_jobs"})");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(exchange(whole.substr(0, size), true), testing::Not(HasSubstr("did not close"))) << size;
  }
  expect_well();
}

TEST_F(ServerTest, BadJsonIsAnsweredAsJsonRpc) {
  start();
  for (const std::string body :
       {"", "{", "[]", "null", "\"\xed\xa0\x80\"", "{\"jsonrpc\":\"2.0\",\"id\":1e999,\"method\":\"get_info\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\\u0000\"}", "[[[[[[]]]]]]"}) {
    EXPECT_THAT(post(body), testing::AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("\"error\":{\"code\":-32"))) << body;
  }
  EXPECT_THAT(post(std::string(60000, '[')), HasSubstr("-32700"));
  EXPECT_THAT(post(std::string(30000, '{') + std::string(30000, '}')), HasSubstr("-32700"));
  expect_well();
}

TEST_F(ServerTest, WhatIsTooLargeIsRefusedAndNotRead) {
  start();
  EXPECT_THAT(post(std::string(65537, 'x')), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(exchange("GET /healthz HTTP/1.1\r\nX: " + std::string(20000, 'x') + "\r\n\r\n"),
              StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(exchange("GET /" + std::string(100000, 'x') + " HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 4"));
  std::string chunks = "POST /rpc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 20; ++i) chunks += "1000\r\n" + std::string(4096, 'x') + "\r\n";
  EXPECT_THAT(exchange(chunks), StartsWith("HTTP/1.1 413 "));
  expect_well();
}

TEST_F(ServerTest, ASlowClientIsCutAtTheDeadline) {
  start({.request_bytes = 65536, .request_timeout = Millis(300), .connections = 8});
  // A byte now and then does not move the deadline.
  const UniqueFd slow = dial(listen_.socket);
  std::atomic<bool> done = false;
  std::jthread dripping([&] {
    for (const char c : std::string("GET /healthz HTTP/1.1\r\nX: ") + std::string(10000, 'x')) {
      if (done || ::send(slow.get(), &c, 1, MSG_NOSIGNAL) != 1) return;
      std::this_thread::sleep_for(Millis(20));
    }
  });
  EXPECT_THAT(receive_all(slow.get()), StartsWith("HTTP/1.1 408 "));
  done = true;
  // One that says nothing at all.
  const UniqueFd silent = dial(listen_.socket);
  EXPECT_EQ(receive_all(silent.get()), "");
  // One that asks and does not take the answer: the server does not wait for ever.
  const UniqueFd deaf = dial(listen_.socket);
  const int small = 1;
  ::setsockopt(deaf.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  std::string many;
  for (int i = 0; i < 20000; ++i) many += "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
  ::fcntl(deaf.get(), F_SETFL, O_NONBLOCK);
  send_all(deaf.get(), many);
  expect_well();
  stop();  // returns although that one still holds on
}

TEST_F(ServerTest, ManyClientsAtOnceAreServedOrTurnedAway) {
  start();
  std::atomic<int> served = 0, refused = 0, odd = 0;
  std::vector<std::jthread> clients;
  for (int i = 0; i < 100; ++i) {
    clients.emplace_back([&] {
      const std::string answer = get("/healthz");
      ++(answer.starts_with("HTTP/1.1 200 ")                     ? served
         : answer.empty() || answer.starts_with("HTTP/1.1 503 ") ? refused
                                                                 : odd);
    });
  }
  clients.clear();
  EXPECT_EQ(odd, 0);
  EXPECT_EQ(served + refused, 100);
  EXPECT_GE(served, 8);
  expect_well();
}

TEST_F(ServerTest, ThoseWhoOnlyHoldOnAreFewAndTheNextHearsWhy) {
  start();
  std::vector<UniqueFd> held;
  for (int i = 0; i < 8; ++i) held.push_back(dial(listen_.socket));
  for (UniqueFd& fd : held) {
    send_all(fd.get(), "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    char byte = 0;
    ASSERT_EQ(::recv(fd.get(), &byte, 1, 0), 1) << "each has its thread now";
  }
  EXPECT_THAT(get("/healthz"), StartsWith("HTTP/1.1 503 "));
  held.clear();
  std::string answer;
  for (int i = 0; i < 500 && !answer.starts_with("HTTP/1.1 200 "); ++i) answer = get("/healthz");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
}

TEST_F(ServerTest, AClientThatHangsUpDoesNotStopItsJob) {
  start();
  Gate begun, go_on;
  EXPECT_CALL(datastore, stop_replicating).WillOnce([&](auto&, JobContext& job) {
    begun.open();
    go_on.wait();
    EXPECT_FALSE(job.stop_token().stop_requested());
    return DetachOutcome{};
  });
  {
    const UniqueFd fd = dial(listen_.socket);
    const std::string body =
        R"({"jsonrpc":"2.0","id":1,"method":"detach_replication_slave","params":{"job_id":"mine"}})";
    send_all(fd.get(),
             "POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    begun.wait();
  }
  go_on.open();
  EXPECT_EQ(jobs.wait("mine", Millis::max()).state, JobState::succeeded);
  expect_well();
}

TEST_F(ServerTest, ThoseWhoHungUpInALongJobLeaveTheirPlaces) {
  start();
  Gate go_on;
  EXPECT_CALL(datastore, stop_replicating).WillOnce([&](auto&, auto&) { return go_on.wait(), DetachOutcome{}; });
  const std::string detach =
      R"({"jsonrpc":"2.0","id":1,"method":"detach_replication_slave","params":{"job_id":"mine"}})";
  const std::string wait =
      R"({"jsonrpc":"2.0","id":1,"method":"wait_job","params":{"job_id":"mine","timeout_s":80000}})";
  const auto ask_and_hang_up = [&](const std::string& body) {
    const UniqueFd fd = dial(listen_.socket);
    send_all(fd.get(),
             "POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  };
  ask_and_hang_up(detach);
  while (jobs.list().empty()) std::this_thread::sleep_for(Millis(1));
  for (const std::string& body : {detach, detach, detach, wait, wait, wait, wait, wait}) {
    ask_and_hang_up(body);
  }
  std::string answer;
  for (int i = 0; i < 5000 && !answer.starts_with("HTTP/1.1 200 "); ++i) answer = get("/healthz");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
  go_on.open();
  EXPECT_EQ(jobs.wait("mine", Millis::max()).state, JobState::succeeded);
}

TEST_F(ServerTest, EventsTellHowAJobGoesAndEndWithoutItsResult) {
  start();
  Gate go_on;
  jobs.start("do_it", JobKind::reading, "mine", "digest", [&](JobContext& job) {
    job.phase("copy");
    job.progress(100, 400);
    go_on.wait();
    return R"({"password":"secret"})";
  });
  const UniqueFd fd = dial(listen_.socket);
  send_all(fd.get(), "GET /jobs/mine/events HTTP/1.1\r\nHost: a\r\n\r\n");
  std::string begin(65536, '\0');
  std::size_t size = 0;
  while (begin.substr(0, size).find("\"bytes\":100") == std::string::npos) {
    const ssize_t n = ::recv(fd.get(), begin.data() + size, begin.size() - size, 0);
    ASSERT_GT(n, 0);
    size += static_cast<std::size_t>(n);
  }
  begin.resize(size);
  EXPECT_THAT(begin, HasSubstr("Content-Type: text/event-stream"));
  EXPECT_THAT(begin, HasSubstr(R"(event: progress
data: {"state":"running","phase":"copy","bytes":100,"total":400,)"));
  go_on.open();
  const std::string rest = receive_all(fd.get());
  EXPECT_THAT(rest, HasSubstr("event: end\ndata: {\"job_id\":\"mine\""));
  EXPECT_THAT(rest, HasSubstr("\"state\":\"succeeded\""));
  EXPECT_THAT(begin + rest, testing::Not(HasSubstr("secret")));
}

TEST_F(ServerTest, AnEventStreamWhoseReaderLeftFreesItsPlace) {
  start();
  Gate go_on;
  jobs.start("do_it", JobKind::reading, "mine", "digest", [&](JobContext&) { return go_on.wait(), "{}"; });
  for (int i = 0; i < 30; ++i) {
    const UniqueFd fd = dial(listen_.socket);
    send_all(fd.get(), "GET /jobs/mine/events HTTP/1.1\r\nHost: a\r\n\r\n");
  }
  std::string answer;
  for (int i = 0; i < 2000 && !answer.starts_with("HTTP/1.1 200 "); ++i) answer = get("/healthz");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
  go_on.open();
  jobs.wait("mine", Millis::max());
}

TEST_F(ServerTest, StopsWhileClientsHoldOnAndGivesTheAnswerThatWasBegun) {
  start();
  const UniqueFd idle = dial(listen_.socket);
  Gate begun;
  EXPECT_CALL(datastore, stop_replicating).WillOnce([&](auto&, JobContext& job) -> DetachOutcome {
    begun.open();
    while (true) {
      job.check_cancelled();
      std::this_thread::sleep_for(Millis(1));
    }
  });
  std::string answer;
  std::jthread caller([&] { answer = post(R"({"jsonrpc":"2.0","id":1,"method":"detach_replication_slave"})"); });
  begun.wait();
  stop();
  caller.join();
  EXPECT_THAT(answer, HasSubstr("CANCELLED"));
  EXPECT_EQ(receive_all(idle.get()), "");
  EXPECT_FALSE(fs::exists(listen_.socket));
}

TEST_F(ServerTest, TheSocketIsPrivateAndAStaleOneIsReplaced) {
  {
    const UniqueFd stale(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, listen_.socket.c_str(), listen_.socket.native().size() + 1);
    ASSERT_EQ(::bind(stale.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  start();
  struct stat info {};
  ASSERT_EQ(::stat(listen_.socket.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0660u);
  expect_well();
  EXPECT_EQ(test::code_of([&] { Server(listen_, dispatcher, jobs, [] { return ""; }); }), "ALREADY_EXISTS");
  expect_well();
}

TEST_F(ServerTest, AFileThatIsNoSocketIsNotReplaced) {
  write_file_atomic(listen_.socket, "precious", 0600);
  EXPECT_EQ(test::code_of([&] { Server(listen_, dispatcher, jobs, [] { return ""; }); }), "ALREADY_EXISTS");
  EXPECT_EQ(read_file(listen_.socket), "precious");
}

TEST_F(ServerTest, NamesThatDoNotExistAreRefused) {
  listen_.allow_users = {"no-such-user-here"};
  EXPECT_EQ(test::code_of([&] { Server(listen_, dispatcher, jobs, [] { return ""; }); }), "INVALID_ARGUMENT");
  listen_.allow_users = {};
  listen_.socket = dir.path() / std::string(120, 'x');
  EXPECT_EQ(test::code_of([&] { Server(listen_, dispatcher, jobs, [] { return ""; }); }), "INVALID_ARGUMENT");
}

// Asks for /healthz as another user and answers the first bytes of what came.
std::string as_user(uid_t uid, gid_t gid, const fs::path& socket) {  // 65534 is nobody, group 1 is daemon
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgroups(0, nullptr) != 0 || ::setgid(gid) != 0 || ::setuid(uid) != 0) ::_exit(1);
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    ::strncpy(address.sun_path, socket.c_str(), sizeof address.sun_path - 1);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      static_cast<void>(!::write(ends[1], "cannot connect", 14));
      ::_exit(0);
    }
    send_all(fd.get(), "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    const std::string answer = receive_all(fd.get());
    static_cast<void>(!::write(ends[1], answer.data(), answer.size()));
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string answer(4096, '\0');
  const ssize_t n = ::read(ends[0], answer.data(), answer.size());
  answer.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  return answer;
}

TEST_F(ServerTest, OtherUsersAreRefusedUnlessAllowed) {
  ASSERT_EQ(::geteuid(), 0u) << "this test changes users: run it as root";
  ::chmod(dir.path().c_str(), 0755);
  listen_.socket_mode = 0666;  // the file lets everybody in; the agent does not
  start();
  EXPECT_THAT(as_user(65534, 65534, listen_.socket),
              testing::AllOf(StartsWith("HTTP/1.1 403 "), HasSubstr("PERMISSION_DENIED")));
  expect_well();
}

TEST_F(ServerTest, AllowedUsersAndGroupsAreServed) {
  ASSERT_EQ(::geteuid(), 0u) << "this test changes users: run it as root";
  ::chmod(dir.path().c_str(), 0755);
  listen_.allow_users = {"nobody", "games"};
  listen_.allow_groups = {"daemon", "bin"};
  for (const unsigned mode : {0660U, 0666U}) {  // by the socket's file as well as by the agent
    listen_.socket_mode = mode;
    start();
    EXPECT_THAT(as_user(65534, 65534, listen_.socket), StartsWith("HTTP/1.1 200 "));
    EXPECT_THAT(as_user(5, 12345, listen_.socket), StartsWith("HTTP/1.1 200 "));
    EXPECT_THAT(as_user(12345, 1, listen_.socket), StartsWith("HTTP/1.1 200 "));
    EXPECT_THAT(as_user(12345, 2, listen_.socket), StartsWith("HTTP/1.1 200 "));
    EXPECT_THAT(as_user(12345, 12345, listen_.socket),
                mode == 0660U ? StartsWith("cannot connect") : StartsWith("HTTP/1.1 403 "));
    struct stat info {};
    ASSERT_EQ(::stat(listen_.socket.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, mode);
    stop();
  }
}

TEST_F(ServerTest, AModeThatIsTighterThanTheListsStays) {
  ASSERT_EQ(::geteuid(), 0u) << "this test changes users: run it as root";
  ::chmod(dir.path().c_str(), 0755);
  listen_.socket_mode = 0600;
  listen_.allow_users = {"nobody"};
  start();
  EXPECT_THAT(as_user(65534, 65534, listen_.socket), StartsWith("cannot connect"));
}

TEST_F(ServerTest, TheClientHearsWhatTheAgentSays) {
  start();
  Client client(listen_.socket);
  EXPECT_EQ(client.call("list_jobs", "{}"), R"({"jobs":[]})");
  const Error refused = test::error_of([&] { client.call("get_job", R"({"job_id":"none"})"); });
  EXPECT_EQ(refused.code(), Code::not_found);
  EXPECT_FALSE(refused.hint().empty());
  jobs.start("do_it", JobKind::reading, "mine", "digest", [](JobContext& job) { return job.phase("copy"), "{}"; });
  JobState last = JobState::running;
  client.follow("mine", [&](const JobRecord& record) { last = record.state; });
  EXPECT_EQ(last, JobState::succeeded);
  stop();
  EXPECT_EQ(test::code_of([&] { client.call("list_jobs", "{}"); }), "UNAVAILABLE");
}

}  // namespace
}  // namespace guestagent

#include "tests/support/scripted_http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <thread>

#include "base/unique_fd.h"

namespace guestagent {
namespace {

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// One connection of a client.
class Line {
 public:
  explicit Line(int fd) : fd_(fd) {}

  // False at the end of the connection.
  bool read_more() {
    char block[65536];
    const ssize_t n = ::recv(fd_, block, sizeof block, 0);
    if (n <= 0) return false;
    buffer_.append(block, static_cast<std::size_t>(n));
    return true;
  }

  bool read_head(PeerRequest& request) {
    std::size_t end = 0;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (!read_more()) return false;
      // What servers that do not speak TLS answer a client that begins with it.
      if (buffer_.front() == '\x16') {
        send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return false;
      }
    }
    const std::string head = buffer_.substr(0, end + 2);
    buffer_.erase(0, end + 4);
    const auto first = head.find("\r\n");
    const std::string line = head.substr(0, first);
    const auto space = line.find(' ');
    request.method = line.substr(0, space);
    request.target = line.substr(space + 1, line.rfind(' ') - space - 1);
    for (std::size_t at = first + 2; at < head.size();) {
      const auto stop = head.find("\r\n", at);
      const std::string header = head.substr(at, stop - at);
      const auto colon = header.find(':');
      const auto value = header.find_first_not_of(' ', colon + 1);
      request.headers[lower(header.substr(0, colon))] = value == std::string::npos ? "" : header.substr(value);
      at = stop + 2;
    }
    return true;
  }

  bool read_body(PeerRequest& request, std::size_t most) {
    const auto length = request.headers.find("content-length");
    const std::size_t all = length == request.headers.end() ? 0 : std::stoull(length->second);
    if (request.headers.contains("expect") && !send("HTTP/1.1 100 Continue\r\n\r\n")) return false;
    const std::size_t wanted = std::min(all, most);
    while (buffer_.size() < wanted) {
      if (!read_more()) return false;
    }
    request.body = buffer_.substr(0, wanted);
    buffer_.erase(0, wanted);
    return true;
  }

  bool send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }

  // Closing after this sends RST.
  void reset() {
    const linger hard{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  }

  void wait_for_end() {
    while (read_more()) buffer_.clear();
  }

 private:
  int fd_;
  std::string buffer_;
};

std::string head_of(const PeerAnswer& answer) {
  std::string text = "HTTP/1.1 " + std::to_string(answer.status) + " Scripted\r\n";
  bool has_length = false;
  for (const auto& [name, value] : answer.headers) {
    text += name + ": " + value + "\r\n";
    has_length = has_length || lower(name) == "content-length" || lower(name) == "transfer-encoding";
  }
  if (answer.no_length) return text + "Connection: close\r\n\r\n";
  if (!has_length && answer.status != 204) text += "Content-Length: " + std::to_string(answer.body.size()) + "\r\n";
  return text + "\r\n";
}

}  // namespace

struct ScriptedHttp::State {
  Answer answer;
  Script script;
  mutable std::mutex mutex;
  std::vector<std::string> seen;
  std::vector<int> open;
  unsigned connections = 0;
  int port = 0;
  UniqueFd listener;
  std::jthread acceptor;
  std::vector<std::jthread> workers;

  void listen() {
    listener.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* plain = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener.get(), plain, size) != 0 || ::listen(listener.get(), 64) != 0 ||
        ::getsockname(listener.get(), plain, &size) != 0) {
      throw std::runtime_error("scripted peer: cannot listen on port " + std::to_string(port));
    }
    port = ntohs(address.sin_port);
    acceptor = std::jthread([this, fd = listener.get()](const std::stop_token& stop) { accept_all(fd, stop); });
  }

  void close() {
    if (!listener) return;
    acceptor.request_stop();
    acceptor.join();
    listener.reset();
    std::vector<std::jthread> ended;
    {
      const std::lock_guard lock(mutex);
      for (const int fd : open) ::shutdown(fd, SHUT_RDWR);
      ended.swap(workers);
    }
  }

  void accept_all(int fd, const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      pollfd one{fd, POLLIN, 0};
      if (::poll(&one, 1, 20) <= 0) continue;
      const int connection = ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) continue;
      const std::lock_guard lock(mutex);
      ++connections;
      open.push_back(connection);
      workers.emplace_back([this, connection] { serve_all(connection); });
    }
  }

  void serve_all(int fd) {
    Line line(fd);
    PeerRequest request;
    while (line.read_head(request) && serve(line, request)) request = {};
    const std::lock_guard lock(mutex);
    std::erase(open, fd);
    ::close(fd);
  }

  // True when the connection is good for another request.
  bool serve(Line& line, PeerRequest& request) {
    Script decide;
    {
      const std::lock_guard lock(mutex);
      seen.push_back(request.method + " " + request.target);
      decide = script;
    }
    const PeerPlan plan = decide ? decide(request) : PeerPlan{};
    if (plan.fault == PeerFault::reset_in_body) {
      line.read_body(request, 100000);
      line.reset();
      return false;
    }
    const bool asks = request.headers.contains("expect");
    constexpr std::string_view kNoExpect =
        "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";
    if (plan.fault == PeerFault::no_expect && asks) {
      line.send(kNoExpect);
      return false;
    }
    const bool late = plan.fault == PeerFault::no_expect_late && asks;
    if (late) request.headers.erase("expect");  // no "100 Continue"
    if (!line.read_body(request, SIZE_MAX)) return false;
    if (late) {
      line.send(kNoExpect);
      return false;
    }
    PeerAnswer reply = plan.instead ? *plan.instead : answer(request);
    if (plan.edit) plan.edit(reply);
    const std::string head = head_of(reply);
    const std::string body = request.method == "HEAD" ? "" : reply.body;
    switch (plan.fault) {
      case PeerFault::none:
      case PeerFault::no_expect:
      case PeerFault::no_expect_late:
        return line.send(head + body) && !reply.no_length;
      case PeerFault::reset_in_body:
      case PeerFault::reset_after_body:
        line.reset();
        return false;
      case PeerFault::close:
        return false;
      case PeerFault::stall:
        line.wait_for_end();
        return false;
      case PeerFault::stall_in_answer:
        line.send(head.substr(0, head.size() - 2));
        line.wait_for_end();
        return false;
      case PeerFault::truncate:
        line.send(body.empty() ? head.substr(0, head.size() / 2) : head + body.substr(0, body.size() - 1));
        return false;
      case PeerFault::garbage_headers:
        line.send(std::string("\x16\x03\x01 \0\xff garbage\r\n:::\r\n\r\n", 23));
        return false;
      case PeerFault::endless_headers:
        line.send("HTTP/1.1 200 OK\r\n");
        while (line.send("X-More: " + std::string(1000, 'x') + "\r\n")) {
        }
        return false;
      case PeerFault::endless_body:
        line.send("HTTP/1.1 " + std::to_string(reply.status) + " OK\r\nConnection: close\r\n\r\n");
        while (line.send(std::string(65536, 'x'))) {
        }
        return false;
    }
    return false;
  }
};

ScriptedHttp::ScriptedHttp(Answer answer) : state_(std::make_unique<State>()) {
  state_->answer = std::move(answer);
  state_->listen();
}
ScriptedHttp::~ScriptedHttp() {
  state_->close();
}
int ScriptedHttp::port() const {
  return state_->port;
}
std::string ScriptedHttp::url() const {
  return "http://127.0.0.1:" + std::to_string(state_->port);
}
void ScriptedHttp::set_script(Script script) {
  const std::lock_guard lock(state_->mutex);
  state_->script = std::move(script);
}
void ScriptedHttp::close_port() {
  state_->close();
}
void ScriptedHttp::open_port() {
  if (!state_->listener) state_->listen();
}
std::vector<std::string> ScriptedHttp::seen() const {
  const std::lock_guard lock(state_->mutex);
  return state_->seen;
}
unsigned ScriptedHttp::connections() const {
  const std::lock_guard lock(state_->mutex);
  return state_->connections;
}

}  // namespace guestagent

#include "controller/http_client.h"

#include <netdb.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "base/host_name.h"
#include "base/text.h"
#include "net/unix_listener.h"

namespace guestagent::controller {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Code_ = boost::system::error_code;
using Socket = asio::generic::stream_protocol::socket;

constexpr std::size_t kMaxAnswerBytes = std::size_t{16} << 20;
constexpr std::size_t kKeptPerAddress = 2;
constexpr Millis kKeptFor{20000};  // shorter than what servers grant
constexpr Millis kSlice{100};      // how soon a stop is noticed
constexpr int kMostLookups = 64;

struct Deadline {
  SteadyTime at;
  std::stop_token stop;
};

bool is_tls_refusal(const Code_& code) {
  return code.category() == asio::error::get_ssl_category();
}

Error failure(const std::string& doing, const Code_& code) {
  if (is_tls_refusal(code)) {
    return Error(Code::permission_denied, doing + ": TLS: " + code.message(),
                 "check the certificates on both sides: who signed them, for which name, until when");
  }
  return Error(Code::unavailable, doing + ": " + code.message());
}

// Looks names up in threads that nobody has to wait for: the system's resolver cannot be stopped, and takes half a
// minute and more where the servers of names do not answer.
class Lookups {
 public:
  explicit Lookups(Resolver resolver) : resolver_(std::move(resolver)) {}

  std::vector<std::string> find(const std::string& host, const std::string& doing, const Deadline& deadline) {
    if (const auto name = HostName::parse(host); name && name->is_address()) return {host};
    auto asked = std::make_shared<Asked>();
    if (++*running_ > kMostLookups) {
      --*running_;
      throw Error(Code::unavailable, doing + ": too many names are being looked up: the resolver does not answer");
    }
    try {
      std::thread([asked, host, resolver = resolver_, running = running_] {
        std::vector<std::string> found;
        std::optional<Error> failed;
        try {
          found = resolver(host);
        } catch (const std::exception& e) {
          failed = to_error(e);
        }
        --*running;
        const std::lock_guard lock(asked->mutex);
        asked->found = std::move(found);
        asked->failed = std::move(failed);
        asked->done = true;
        asked->changed.notify_all();
      }).detach();
    } catch (const std::system_error& e) {
      --*running_;
      throw Error(Code::unavailable, doing + ": no thread to look its name up: " + e.what());
    }
    std::unique_lock lock(asked->mutex);
    if (!asked->changed.wait_until(lock, deadline.stop, deadline.at, [&] { return asked->done; })) {
      if (deadline.stop.stop_requested()) throw Error(Code::cancelled, doing + ": stopped");
      throw Error(Code::deadline_exceeded,
                  doing + ": its name was not found out in time: is the resolver of this host well?");
    }
    if (asked->failed) throw asked->failed->with_context(doing);
    return asked->found;
  }

 private:
  struct Asked {
    std::mutex mutex;
    std::condition_variable_any changed;
    bool done = false;
    std::vector<std::string> found;
    std::optional<Error> failed;
  };
  Resolver resolver_;
  std::shared_ptr<std::atomic<int>> running_ = std::make_shared<std::atomic<int>>(0);
};

// A connection with an event loop of its own, so that every step has a deadline.
class Connection {
 public:
  Connection(const HttpAddress& address, asio::ssl::context& tls) : socket_(loop_), doing_(address.host_header()) {
    if (address.kind == HttpAddress::Kind::tls) secure_.emplace(socket_, tls);
  }

  void open(const HttpAddress& address, const Deadline& deadline, Lookups& lookups,
            const std::optional<std::vector<uid_t>>& socket_users) {
    if (address.kind == HttpAddress::Kind::unix_socket) {
      doing_ = "connecting to " + address.path;
      const asio::local::stream_protocol::endpoint endpoint(address.path);
      step(deadline, [&](auto done) { socket_.async_connect(endpoint, done); });
      if (!socket_users) return;
      const uid_t user = peer_user(socket_.native_handle());
      if (std::find(socket_users->begin(), socket_users->end(), user) != socket_users->end()) return;
      throw Error(
          Code::permission_denied,
          doing_ + ": a process of user " + std::to_string(user) + " serves it, whom the controller does not trust",
          "agents run as root; name the user of one that does not in agents.socket_users");
    }
    doing_ = "connecting to " + address.host + ":" + address.port;
    Code_ last = asio::error::host_not_found;
    for (const std::string& number : lookups.find(address.host, doing_, deadline)) {
      Code_ ignored;
      const auto parsed = asio::ip::make_address(number, ignored);
      if (ignored) continue;
      socket_.close(ignored);
      const asio::ip::tcp::endpoint endpoint(parsed, static_cast<std::uint16_t>(std::stoi(address.port)));
      last = try_step(deadline, [&](auto done) { socket_.async_connect(endpoint, done); });
      if (!last) break;
    }
    if (last) throw failure(doing_, last);
    socket_.set_option(asio::ip::tcp::no_delay(true));
    if (!secure_) return;
    // What the macro SSL_set_tlsext_host_name does, without its cast.
    std::string name = address.host;
    ::SSL_ctrl(secure_->native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data());
    secure_->set_verify_callback(asio::ssl::host_name_verification(address.host));
    step(deadline, [&](auto done) { secure_->async_handshake(asio::ssl::stream_base::client, done); });
  }

  // False when the peer had closed it before an answer began.
  bool exchange(const http::request<http::string_body>& request, http::response_parser<http::string_body>& parser,
                const Deadline& deadline) {
    doing_ = "asking " + std::string(request[http::field::host]);
    const auto count = [](auto done) { return [done](const Code_& code, std::size_t) { done(code); }; };
    Code_ code = try_step(deadline, [&](auto done) {
      secure_ ? http::async_write(*secure_, request, count(done)) : http::async_write(socket_, request, count(done));
    });
    if (!code) {
      code = try_step(deadline, [&](auto done) {
        secure_ ? http::async_read(*secure_, buffer_, parser, count(done))
                : http::async_read(socket_, buffer_, parser, count(done));
      });
    }
    if (!code) return true;
    if (code == http::error::body_limit) {
      throw Error(Code::resource_exhausted,
                  doing_ + ": the answer is larger than " + std::to_string(kMaxAnswerBytes >> 20) + " MiB");
    }
    if (!parser.got_some() && !is_tls_refusal(code)) {
      last_ = failure(doing_, code);
      return false;
    }
    throw failure(doing_, code);
  }

  const Error& last_failure() const { return last_; }

 private:
  template <typename Start>
  Code_ try_step(const Deadline& deadline, Start start) {
    std::optional<Code_> result;
    start([&result](const Code_& code) { result = code; });
    loop_.restart();
    while (!result) {
      const auto left = std::chrono::duration_cast<Millis>(deadline.at - std::chrono::steady_clock::now());
      if (left <= Millis(0) || deadline.stop.stop_requested()) {
        Code_ ignored;
        socket_.close(ignored);
        loop_.run();
        if (deadline.stop.stop_requested()) throw Error(Code::cancelled, doing_ + ": stopped");
        throw Error(Code::deadline_exceeded, doing_ + ": no answer in time");
      }
      loop_.run_one_for(std::min(left, kSlice));
    }
    return *result;
  }
  template <typename Start>
  void step(const Deadline& deadline, Start start) {
    if (const Code_ code = try_step(deadline, start)) throw failure(doing_, code);
  }

  asio::io_context loop_{1};
  Socket socket_;
  std::optional<asio::ssl::stream<Socket&>> secure_;
  beast::flat_buffer buffer_;
  std::string doing_;
  Error last_{Code::unavailable, ""};
};

std::string tls_error() {
  const auto code = ::ERR_get_error();
  return code == 0 ? "unknown reason" : Code_(static_cast<int>(code), asio::error::get_ssl_category()).message();
}

}  // namespace

std::vector<std::string> resolve_by_system(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  int failed = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (failed != 0) {  // a host without a network has its loopback all the same
    hints.ai_flags = 0;
    failed = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
  }
  if (failed != 0) throw Error(Code::unavailable, std::string("its name is not known: ") + ::gai_strerror(failed));
  std::vector<std::string> out;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    char text[NI_MAXHOST];
    if (::getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      out.emplace_back(text);
  }
  ::freeaddrinfo(found);
  return out;
}

struct HttpClient::State {
  explicit State(HttpClientOptions o) : options(std::move(o)), lookups(options.resolver) {}
  const HttpClientOptions options;
  Lookups lookups;
  asio::ssl::context tls{asio::ssl::context::tls_client};
  struct Kept {
    std::unique_ptr<Connection> connection;
    SteadyTime since;
  };
  std::mutex mutex;
  std::map<std::string, std::vector<Kept>> kept;

  std::unique_ptr<Connection> take(const std::string& key) {
    std::lock_guard lock(mutex);
    auto& list = kept[key];
    const SteadyTime now = std::chrono::steady_clock::now();
    while (!list.empty()) {
      Kept last = std::move(list.back());
      list.pop_back();
      if (now - last.since < kKeptFor) return std::move(last.connection);
    }
    return nullptr;
  }
  void keep(const std::string& key, std::unique_ptr<Connection> connection) {
    std::lock_guard lock(mutex);
    auto& list = kept[key];
    if (list.size() < kKeptPerAddress) list.push_back({std::move(connection), std::chrono::steady_clock::now()});
  }
};

HttpAddress HttpAddress::parse(std::string_view text) {
  const auto bad = [&](const std::string& why) {
    return Error(Code::invalid_argument, "reading the address " + printable(text) + ": " + why,
                 "write unix:/path/agent.sock or https://host:port");
  };
  HttpAddress out;
  if (text.starts_with("unix:")) {
    out.kind = Kind::unix_socket;
    out.path = text.substr(5);
    if (!out.path.starts_with('/')) throw bad("the socket's path must begin with a slash");
    if (out.path.size() > 107) throw bad("a socket's path has at most 107 bytes");
    if (out.path.find('\0') != std::string::npos) throw bad("it has a zero byte");
    return out;
  }
  std::string_view rest = text;
  if (rest.starts_with("https://")) {
    out.kind = Kind::tls;
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else {
    throw bad("it begins with none of unix:, https:// and http://");
  }
  if (rest.ends_with('/')) rest.remove_suffix(1);
  const auto host = HostPort::parse(rest);
  if (!host)
    throw bad(
        "after the scheme comes a host name or an address (IPv6 in brackets), a colon and a port from 1 to 65535");
  if (!host->port) throw bad("the port is missing");
  out.host = host->host.text();
  out.port = std::to_string(*host->port);
  if (out.kind == Kind::tcp && !host->host.is_loopback()) throw bad("plain http goes to this host only");
  return out;
}

std::string HttpAddress::host_header() const {
  if (kind == Kind::unix_socket) return "agent";
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + port;
}

HttpClient::HttpClient(const HttpClientTls& tls, HttpClientOptions options)
    : state_(std::make_unique<State>(std::move(options))) {
  auto& context = state_->tls;
  context.set_verify_mode(asio::ssl::verify_peer);
  ::SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  const auto use = [](const fs::path& file, auto&& load) {
    Code_ code;
    load(code);
    if (code) {
      throw Error(Code::invalid_argument, "reading TLS files: " + file.string() + ": " + code.message(),
                  "it must be a readable PEM file");
    }
  };
  if (tls.ca_file.empty()) {
    context.set_default_verify_paths();
  } else {
    use(tls.ca_file, [&](Code_& code) { context.load_verify_file(tls.ca_file.string(), code); });
  }
  if (!tls.certificate.empty()) {
    use(tls.certificate, [&](Code_& code) { context.use_certificate_chain_file(tls.certificate.string(), code); });
    use(tls.key, [&](Code_& code) { context.use_private_key_file(tls.key.string(), asio::ssl::context::pem, code); });
    if (::SSL_CTX_check_private_key(context.native_handle()) != 1) {
      throw Error(Code::invalid_argument, "reading TLS files: " + tls.key.string() + ": not the key of " +
                                              tls.certificate.string() + ": " + tls_error());
    }
  }
}

HttpClient::~HttpClient() = default;

HttpAnswer HttpClient::exchange(const HttpAddress& address, const HttpExchange& in, Millis timeout,
                                std::stop_token stop) {
  const Deadline deadline{std::chrono::steady_clock::now() + timeout, stop};
  const std::string key = address.kind == HttpAddress::Kind::unix_socket
                              ? address.path
                              : (address.kind == HttpAddress::Kind::tls ? "tls " : "") + address.host_header();

  http::request<http::string_body> request(http::string_to_verb(in.method), in.target, 11);
  request.set(http::field::host, address.host_header());
  request.set(http::field::user_agent, "guestagent-controller");
  if (!in.body.empty()) request.set(http::field::content_type, "application/json");
  for (const auto& [name, value] : in.headers) request.set(name, value);
  request.body() = in.body;
  request.prepare_payload();

  for (int attempt = 0;; ++attempt) {
    auto connection = attempt == 0 ? state_->take(key) : nullptr;
    const bool kept = connection != nullptr;
    if (!kept) {
      connection = std::make_unique<Connection>(address, state_->tls);
      connection->open(address, deadline, state_->lookups, state_->options.socket_users);
    }
    http::response_parser<http::string_body> parser;
    parser.body_limit(kMaxAnswerBytes);
    if (!connection->exchange(request, parser, deadline)) {
      if (kept) continue;
      throw connection->last_failure();
    }
    const auto& answer = parser.get();
    HttpAnswer out{static_cast<int>(answer.result_int()), std::string(answer[http::field::content_type]),
                   answer.body()};
    if (answer.keep_alive()) state_->keep(key, std::move(connection));
    return out;
  }
}

}  // namespace guestagent::controller

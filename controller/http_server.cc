#include "controller/http_server.h"

#include <openssl/ssl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <list>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "net/client_crl.h"
#include "net/client_names.h"
#include "net/unix_listener.h"

#ifdef __GNUC__
// Asio's own allocation of coroutine frames, seen through inlining.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace guestagent::controller {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::use_awaitable;
using tcp = asio::ip::tcp;
using local_protocol = asio::local::stream_protocol;
using ErrorCode = boost::system::error_code;
using Plain = beast::tcp_stream;
using Secure = asio::ssl::stream<beast::tcp_stream>;

constexpr Millis kDrain{3000};
constexpr std::size_t kMostDrained = std::size_t{16} << 20;
constexpr std::size_t kDrainChunk = 16 << 10;
constexpr std::size_t kMostRefusals = 16;
constexpr Millis kRefusal{1000};
constexpr unsigned kIoThreads = 2;
constexpr unsigned kWorkers = 8;  // they wait for agents and the database

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string decode(std::string_view text, bool plus_is_space) {
  std::string out;
  for (std::size_t n = 0; n < text.size(); ++n) {
    if (text[n] == '%' && n + 2 < text.size() && hex_digit(text[n + 1]) >= 0 && hex_digit(text[n + 2]) >= 0) {
      out += static_cast<char>(hex_digit(text[n + 1]) * 16 + hex_digit(text[n + 2]));
      n += 2;
    } else {
      out += plus_is_space && text[n] == '+' ? ' ' : text[n];
    }
  }
  return out;
}

void read_target(std::string_view target, ReceivedRequest& out) {
  const std::size_t mark = target.find('?');
  out.path = decode(target.substr(0, mark), false);
  if (mark == std::string_view::npos) return;
  std::string_view rest = target.substr(mark + 1);
  while (!rest.empty()) {
    const std::size_t end = rest.find('&');
    const std::string_view pair = rest.substr(0, end);
    const std::size_t equals = pair.find('=');
    out.query.emplace_back(decode(pair.substr(0, equals), true),
                           equals == std::string_view::npos ? "" : decode(pair.substr(equals + 1), true));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
}

std::string text_of(const beast::string_view view) {
  return {view.data(), view.size()};
}

// `from`: what is known of the caller before it says anything.
ReceivedRequest read_request(const http::request<http::string_body>& in, const ReceivedRequest& from) {
  ReceivedRequest out = from;
  out.method = text_of(in.method_string());
  read_target({in.target().data(), in.target().size()}, out);
  out.body = in.body();
  out.host = text_of(in[http::field::host]);
  out.origin = text_of(in[http::field::origin]);
  out.authorization = text_of(in[http::field::authorization]);
  out.accept = text_of(in[http::field::accept]);
  out.idempotency_key = text_of(in["Idempotency-Key"]);
  out.last_event_id = text_of(in["Last-Event-ID"]);
  return out;
}

// Fields of which a second one would mean something else to somebody else.
std::string repeated_field(const http::request<http::string_body>& in) {
  if (in.count(http::field::host) != 1) return "Host";
  for (const http::field field : {http::field::origin, http::field::authorization}) {
    if (in.count(field) > 1) return std::string(http::to_string(field));
  }
  return in.count("Idempotency-Key") > 1 ? "Idempotency-Key" : "";
}

HttpReply bad_request(const std::string& message) {
  JsonWriter out;
  out.begin_object()
      .key("badRequest")
      .begin_object()
      .member("code", 400)
      .member("message", message)
      .end_object()
      .end_object();
  return {400, "application/json", out.text()};
}

// A connection of somebody who may still turn out to be nobody.
struct Guest {
  std::string address;        // without port
  std::string from;           // the same but for IPv6, where a host has many: its network
  std::function<void()> end;  // from any thread; empty once the connection is gone
  bool known = false;
  std::atomic<bool> ended{false};  // its place was given to another
};

// Who has proven nothing yet. Thread-safe.
class Strangers {
 public:
  explicit Strangers(StrangerLimits limits) : limits_(limits) {}

  void enter(const std::shared_ptr<Guest>& guest) {
    std::function<void()> end_other;
    {
      const std::lock_guard lock(mutex_);
      std::size_t same = 0;
      auto oldest_same = waiting_.end();
      for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
        if ((*it)->from != guest->from) continue;
        if (oldest_same == waiting_.end()) oldest_same = it;
        ++same;
      }
      auto leaves = same >= limits_.of_address          ? oldest_same
                    : waiting_.size() >= limits_.in_all ? waiting_.begin()
                                                        : waiting_.end();
      if (leaves != waiting_.end()) {
        (*leaves)->ended = true;
        end_other = (*leaves)->end;
        waiting_.erase(leaves);
      }
      waiting_.push_back(guest);
    }
    if (end_other) end_other();
  }
  // It is known now, or gone.
  void leave(const std::shared_ptr<Guest>& guest) {
    const std::lock_guard lock(mutex_);
    waiting_.remove(guest);
  }

 private:
  StrangerLimits limits_;
  std::mutex mutex_;
  std::list<std::shared_ptr<Guest>> waiting_;  // oldest first
};

using LocalStream = beast::basic_stream<local_protocol>;

}  // namespace

std::string ReceivedRequest::query_value(std::string_view key) const {
  for (const auto& [name, value] : query) {
    if (name == key) return value;
  }
  return {};
}

struct HttpServer::State {
  State(const ControllerSettings& s, Handler h)
      : settings(s),
        handler(std::move(h)),
        workers(kWorkers),
        local({"controller", s.socket, s.socket_mode, s.allow_users, s.allow_groups}) {}

  const ControllerSettings settings;
  Handler handler;
  Strangers strangers{StrangerLimits{}};  // outlives the connections, which io has
  asio::io_context io{kIoThreads};
  asio::thread_pool workers;
  UnixListener local;
  local_protocol::acceptor local_acceptor{io};
  tcp::acceptor acceptor{io};
  std::uint16_t port = 0;
  bool loopback = false;
  std::vector<std::thread> threads;
  std::atomic<std::size_t> local_connections{0}, refusals{0}, connections{0};
  std::size_t most_remote = kMostRemote;
  std::mutex tls_mutex;
  std::shared_ptr<asio::ssl::context> tls;  // replaced as a whole
  std::atomic<unsigned> tls_reloads{0};
  bool stopped = false;

  std::shared_ptr<asio::ssl::context> make_tls() const;
  void listen();
  std::optional<std::string> known_name(Secure& stream) const;
  asio::awaitable<HttpReply> handle(ReceivedRequest request);
  template <typename Acceptor, typename Begin>
  asio::awaitable<void> accept(Acceptor& from, Begin begin);
  void begin_local(local_protocol::socket socket);
  void begin_remote(tcp::socket socket);
  asio::awaitable<void> talk_local(local_protocol::socket socket, ReceivedRequest from);
  asio::awaitable<void> turn_away(local_protocol::socket socket);
  asio::awaitable<void> talk_remote(tcp::socket socket, std::shared_ptr<Guest> guest);
  template <typename Stream>
  asio::awaitable<void> serve(Stream& stream, ReceivedRequest from, std::shared_ptr<Guest> guest);
  template <typename Stream>
  asio::awaitable<void> drain(Stream& stream);
  template <typename Stream>
  asio::awaitable<void> send_events(Stream& stream, std::shared_ptr<EventStream> events, bool secure);
};

std::shared_ptr<asio::ssl::context> HttpServer::State::make_tls() const {
  auto out = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_server);
  ::SSL_CTX_set_min_proto_version(out->native_handle(), TLS1_2_VERSION);
  // A session of a client that showed a certificate can be taken up again only in a context that has a name. A reload
  // makes another context, with other keys for tickets: sessions from before it begin anew, and their certificates are
  // looked at again.
  static constexpr unsigned char kSessions[] = "guestagent-controller";
  ::SSL_CTX_set_session_id_context(out->native_handle(), kSessions, sizeof kSessions - 1);
  ::SSL_CTX_set_session_cache_mode(out->native_handle(),
                                   SSL_SESS_CACHE_OFF);  // tickets only, which die with the context
  const auto use = [](const std::filesystem::path& file, auto&& load) {
    ErrorCode code;
    load(code);
    if (code) {
      throw Error(Code::invalid_argument, "reading TLS files: " + file.string() + ": " + code.message(),
                  "it must be a readable PEM file");
    }
  };
  const auto& files = settings.tls;
  use(files.certificate, [&](ErrorCode& code) { out->use_certificate_chain_file(files.certificate.string(), code); });
  use(files.key,
      [&](ErrorCode& code) { out->use_private_key_file(files.key.string(), asio::ssl::context::pem, code); });
  if (files.client_ca.empty()) return out;
  use(files.client_ca, [&](ErrorCode& code) { out->load_verify_file(files.client_ca.string(), code); });
  if (!files.client_crl.empty()) use_client_crl(::SSL_CTX_get_cert_store(out->native_handle()), files.client_crl);
  const bool needed = settings.token_file.empty();
  out->set_verify_mode(needed ? asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert
                              : asio::ssl::verify_peer);
  return out;
}

void HttpServer::State::listen() {
  ErrorCode code;
  local_acceptor.assign(local_protocol(), ::dup(local.fd()), code);
  if (code) throw Error(Code::internal, "listening at " + settings.socket.string() + ": " + code.message());
  if (settings.listen.empty()) return;
  // Strangers must not use up the descriptors that the Unix socket and the agents need.
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) most_remote = std::min<std::size_t>(most_remote, files.rlim_cur / 4);
  const ListenAddress address = parse_listen_address(settings.listen);
  const tcp::endpoint endpoint(asio::ip::make_address(address.host), address.port);
  acceptor.open(endpoint.protocol(), code);
  if (!code) acceptor.set_option(asio::socket_base::reuse_address(true), code);
  if (!code) acceptor.bind(endpoint, code);
  if (!code) acceptor.listen(asio::socket_base::max_listen_connections, code);
  if (code) {
    throw Error(Code::unavailable, "listening on " + settings.listen + ": " + code.message(),
                "set controller.listen to a free address of this host");
  }
  port = acceptor.local_endpoint().port();
  loopback = address.loopback();
}

// The name of a client that showed a certificate that counts.
std::optional<std::string> HttpServer::State::known_name(Secure& stream) const {
  if (settings.tls.client_ca.empty()) return std::nullopt;
  X509* certificate = ::SSL_get1_peer_certificate(stream.native_handle());
  if (certificate == nullptr) return std::nullopt;
  const std::vector<std::string> names = client_names(certificate);
  ::X509_free(certificate);
  if (settings.tls.allow_names.empty()) return names.empty() ? std::string("without a name") : names[0];
  for (const std::string& name : names) {
    for (const std::string& allowed : settings.tls.allow_names) {
      if (name == allowed) return name;
    }
  }
  return std::nullopt;
}

// The handler may wait for agents: it runs among the workers, and the connection's coroutine goes on where it
// was.
asio::awaitable<HttpReply> HttpServer::State::handle(ReceivedRequest request) {
  return asio::async_initiate<const asio::use_awaitable_t<>&, void(HttpReply)>(
      [this](auto done, ReceivedRequest in) {
        asio::post(workers, [this, done = std::move(done), in = std::move(in)]() mutable {
          HttpReply reply = handler(in);
          const auto executor = asio::get_associated_executor(done);
          asio::post(executor,
                     [done = std::move(done), reply = std::move(reply)]() mutable { done(std::move(reply)); });
        });
      },
      use_awaitable, std::move(request));
}

template <typename Acceptor, typename Begin>
asio::awaitable<void> HttpServer::State::accept(Acceptor& from, Begin begin) {
  asio::steady_timer pause(io);
  for (;;) {
    ErrorCode code;
    auto socket = co_await from.async_accept(asio::make_strand(io), asio::redirect_error(use_awaitable, code));
    if (code == asio::error::operation_aborted || !from.is_open()) co_return;
    if (code) {  // out of descriptors, say: it passes
      log_warning("accepting a connection failed", {{"error", code.message()}});
      pause.expires_after(Millis(100));
      co_await pause.async_wait(asio::redirect_error(use_awaitable, code));
      continue;
    }
    begin(std::move(socket));
  }
}

void HttpServer::State::begin_local(local_protocol::socket socket) {
  const auto executor = socket.get_executor();
  if (!local.allows(socket.native_handle())) {
    if (refusals >= kMostRefusals) return;
    ++refusals;
    asio::co_spawn(executor, turn_away(std::move(socket)), [this](std::exception_ptr) { --refusals; });
    return;
  }
  if (local_connections >= kMostLocal) return;
  ReceivedRequest from;
  from.local = true;
  from.caller = "uid " + std::to_string(peer_user(socket.native_handle()));
  ++local_connections;
  asio::co_spawn(executor, talk_local(std::move(socket), std::move(from)),
                 [this](std::exception_ptr) { --local_connections; });
}

void HttpServer::State::begin_remote(tcp::socket socket) {
  if (connections >= most_remote) return;  // closed at once
  ErrorCode code;
  const auto peer = socket.remote_endpoint(code);
  if (code) return;
  const auto guest = std::make_shared<Guest>();
  guest->address = guest->from = peer.address().to_string();
  if (peer.address().is_v6() && !peer.address().to_v6().is_v4_mapped()) {
    const auto bytes = peer.address().to_v6().to_bytes();
    guest->from.assign(bytes.begin(), bytes.begin() + 8);
  }
  ++connections;
  const auto executor = socket.get_executor();
  asio::co_spawn(executor, talk_remote(std::move(socket), guest), [this](std::exception_ptr) { --connections; });
}

asio::awaitable<void> HttpServer::State::talk_local(local_protocol::socket socket, ReceivedRequest from) {
  LocalStream stream(std::move(socket));
  co_await serve(stream, std::move(from), nullptr);
  ErrorCode code;
  stream.socket().shutdown(local_protocol::socket::shutdown_send, code);
}

asio::awaitable<void> HttpServer::State::turn_away(local_protocol::socket socket) {
  LocalStream stream(std::move(socket));
  stream.expires_after(kRefusal);
  http::response<http::string_body> response(http::status::forbidden, 11);
  response.set(http::field::content_type, "application/json");
  response.body() = R"({"forbidden": {"code": 403, "message": "this user may not talk to the controller", )"
                    R"("hint": "name it in controller.allow_users, or a group of its in controller.allow_groups"}})"
                    "\n";
  response.keep_alive(false);
  response.prepare_payload();
  ErrorCode code;
  co_await http::async_write(stream, response, asio::redirect_error(use_awaitable, code));
  stream.socket().shutdown(local_protocol::socket::shutdown_send, code);
  if (!code) co_await drain(stream);
}

asio::awaitable<void> HttpServer::State::talk_remote(tcp::socket socket, std::shared_ptr<Guest> guest) {
  ErrorCode code;
  socket.set_option(tcp::no_delay(true), code);
  ReceivedRequest from;
  from.port = port;
  from.loopback_listener = loopback;
  from.caller = guest->address;
  // Whoever ends it does so on the connection's own strand, while it is there.
  const auto executor = socket.get_executor();
  const auto ends_with = [&](auto& stream) {
    std::weak_ptr<Guest> there = guest;
    auto* lowest = &beast::get_lowest_layer(stream);
    guest->end = [there, lowest, executor] {
      asio::post(executor, [there, lowest] {
        // The guest is let go of only after the stream.
        if (const auto still = there.lock(); still && still->end) lowest->cancel();
      });
    };
    strangers.enter(guest);
  };
  // Made after the stream, so gone before it.
  struct Leaving {
    Strangers& strangers;
    std::shared_ptr<Guest> guest;
    ~Leaving() {
      strangers.leave(guest);
      guest->end = nullptr;
    }
  };
  if (settings.tls.certificate.empty()) {
    Plain stream(std::move(socket));
    const Leaving leaving{strangers, guest};
    ends_with(stream);
    co_await serve(stream, std::move(from), guest);
    stream.socket().shutdown(tcp::socket::shutdown_send, code);
    co_return;
  }
  std::shared_ptr<asio::ssl::context> context;
  {
    const std::lock_guard lock(tls_mutex);
    context = tls;
  }
  Secure stream(Plain(std::move(socket)), *context);
  const Leaving leaving{strangers, guest};
  ends_with(stream);
  beast::get_lowest_layer(stream).expires_after(kHandshake);
  co_await stream.async_handshake(asio::ssl::stream_base::server, asio::redirect_error(use_awaitable, code));
  if (!code) {
    from.tls = true;
    if (const auto name = known_name(stream)) {
      from.known_client = true;
      from.caller = "certificate " + printable(*name) + " at " + guest->address;
      guest->known = true;
      strangers.leave(guest);
    }
    co_await serve(stream, std::move(from), guest);
  }
  if (code) co_return;
  beast::get_lowest_layer(stream).expires_after(Millis(1000));
  co_await stream.async_shutdown(asio::redirect_error(use_awaitable, code));
}

template <typename Stream>
asio::awaitable<void> HttpServer::State::serve(Stream& stream, ReceivedRequest from, std::shared_ptr<Guest> guest) {
  beast::flat_buffer buffer;
  auto& lowest = beast::get_lowest_layer(stream);
  const unsigned reloads = tls_reloads;
  for (;;) {
    http::request_parser<http::string_body> parser;
    parser.header_limit(kMaxHeaderBytes);
    parser.body_limit(kMaxBodyBytes);
    lowest.expires_after(guest && !guest->known ? kFirstRequest : kIdle);
    ErrorCode code;
    co_await http::async_read(stream, buffer, parser, asio::redirect_error(use_awaitable, code));
    HttpReply reply;
    bool keep_alive = false;
    unsigned version = 11;
    bool head = false;
    if (!code) {
      const auto& request = parser.get();
      keep_alive = request.keep_alive();
      version = request.version();
      head = request.method() == http::verb::head;
      lowest.expires_never();
      if (const std::string field = repeated_field(request); field.empty()) {
        reply = co_await handle(read_request(request, from));
      } else {
        reply = bad_request("there must be exactly one " + field + " header");
      }
      if (reply.known && guest && !guest->known) {
        guest->known = true;
        strangers.leave(guest);
      }
    } else if (code == http::error::body_limit) {
      reply = {413, "application/json",
               R"({"overLimit": {"code": 413, "message": "the request's body is too large"}})"};
    } else if (code == http::error::end_of_stream || code == asio::error::operation_aborted ||
               code == beast::error::timeout ||
               code.category() != http::make_error_code(http::error::bad_method).category()) {
      co_return;
    } else {
      reply = {400, "application/json", R"({"badRequest": {"code": 400, "message": "the request is not good HTTP"}})"};
    }
    http::response<http::string_body> response(static_cast<http::status>(reply.status), version);
    response.set(http::field::content_type, reply.content_type);
    for (const auto& [name, value] : reply.headers) response.set(name, value);
    if (reply.stream) {
      http::response<http::empty_body> start(http::status::ok, 11);
      start.set(http::field::content_type, "text/event-stream");
      start.set(http::field::cache_control, "no-store");
      for (const auto& [name, value] : reply.headers) start.set(name, value);
      start.keep_alive(false);  // its end is the connection's
      http::response_serializer<http::empty_body> serializer(start);
      lowest.expires_after(kIdle);
      co_await http::async_write_header(stream, serializer, asio::redirect_error(use_awaitable, code));
      if (!code) co_await send_events(stream, reply.stream, from.tls);
      co_return;
    }
    // What the certificate said then may not be so by the files that were read since.
    if (from.tls && reloads != tls_reloads) keep_alive = false;
    response.keep_alive(keep_alive);
    response.body() = std::move(reply.body);
    response.prepare_payload();
    if (head) response.body().clear();
    lowest.expires_after(kIdle);
    co_await http::async_write(stream, response, asio::redirect_error(use_awaitable, code));
    if (reply.status == 413) co_await drain(stream);
    if (code || !response.keep_alive() || (guest && guest->ended)) co_return;
  }
}

// So that the client reads the answer before it learns that nobody reads on.
template <typename Stream>
asio::awaitable<void> HttpServer::State::drain(Stream& stream) {
  beast::get_lowest_layer(stream).expires_after(kDrain);
  std::vector<char> scratch(kDrainChunk);
  ErrorCode code;
  for (std::size_t total = 0; !code && total < kMostDrained;) {
    total += co_await stream.async_read_some(asio::buffer(scratch), asio::redirect_error(use_awaitable, code));
  }
}

template <typename Stream>
asio::awaitable<void> HttpServer::State::send_events(Stream& stream, std::shared_ptr<EventStream> events, bool secure) {
  const unsigned reloads = tls_reloads;
  auto& lowest = beast::get_lowest_layer(stream);
  const auto executor = lowest.get_executor();
  const auto timer = std::make_shared<asio::steady_timer>(executor);
  events->on_ready([timer, executor] { asio::post(executor, [timer] { timer->cancel(); }); });
  ErrorCode code;
  while (!code && !(secure && reloads != tls_reloads)) {
    std::string frames = events->take();
    if (frames.empty()) {
      if (events->closed()) break;
      timer->expires_after(kKeepAlive);
      ErrorCode waited;
      co_await timer->async_wait(asio::redirect_error(use_awaitable, waited));
      if (waited) continue;
      frames = ": still here\n\n";
    }
    lowest.expires_after(kIdle);
    co_await asio::async_write(stream, asio::buffer(frames), asio::redirect_error(use_awaitable, code));
    lowest.expires_never();
  }
  events->on_ready(nullptr);
}

HttpServer::HttpServer(const ControllerSettings& settings, Handler handler)
    : state_(std::make_unique<State>(settings, std::move(handler))) {
  if (!settings.tls.certificate.empty()) state_->tls = state_->make_tls();
  state_->listen();
}

HttpServer::~HttpServer() {
  stop();
}

std::uint16_t HttpServer::port() const {
  return state_->port;
}

void HttpServer::reload_tls() {
  if (state_->settings.tls.certificate.empty()) return;
  auto fresh = state_->make_tls();
  const std::lock_guard lock(state_->tls_mutex);
  state_->tls = std::move(fresh);
  ++state_->tls_reloads;
}

void HttpServer::start() {
  State* state = state_.get();
  asio::co_spawn(state->io,
                 state->accept(state->local_acceptor,
                               [state](local_protocol::socket socket) { state->begin_local(std::move(socket)); }),
                 asio::detached);
  if (state->port != 0) {
    asio::co_spawn(
        state->io,
        state->accept(state->acceptor, [state](tcp::socket socket) { state->begin_remote(std::move(socket)); }),
        asio::detached);
  }
  for (unsigned n = 0; n < kIoThreads; ++n) {
    state_->threads.emplace_back([this] { state_->io.run(); });
  }
}

void HttpServer::stop() {
  if (std::exchange(state_->stopped, true)) return;
  // Requests that a worker has are answered to the end of their work, but not sent: their clients ask again.
  state_->io.stop();
  for (std::thread& thread : state_->threads) thread.join();
  state_->workers.stop();
  state_->workers.join();
}

}  // namespace guestagent::controller

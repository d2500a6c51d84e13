#include "controller/http_server.h"

#include <openssl/x509v3.h>

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <thread>

#include "base/error.h"
#include "base/log.h"

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
using ErrorCode = boost::system::error_code;
using Plain = beast::tcp_stream;
using Secure = asio::ssl::stream<beast::tcp_stream>;

constexpr Millis kDrain{3000};
constexpr std::size_t kMostDrained = std::size_t{16} << 20;
constexpr std::size_t kDrainChunk = 16 << 10;
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

void read_target(std::string_view target, HttpRequest& out) {
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

HttpRequest read_request(const http::request<http::string_body>& in, bool known_client) {
  HttpRequest out;
  out.method = text_of(in.method_string());
  read_target({in.target().data(), in.target().size()}, out);
  out.body = in.body();
  out.host = text_of(in[http::field::host]);
  out.origin = text_of(in[http::field::origin]);
  out.authorization = text_of(in[http::field::authorization]);
  out.accept = text_of(in[http::field::accept]);
  out.idempotency_key = text_of(in["Idempotency-Key"]);
  out.last_event_id = text_of(in["Last-Event-ID"]);
  out.known_client = known_client;
  return out;
}

std::vector<std::string> names_of(X509* certificate) {
  std::vector<std::string> out;
  char common[256];
  if (::X509_NAME_get_text_by_NID(::X509_get_subject_name(certificate), NID_commonName, common,
                                  sizeof common) > 0)
    out.emplace_back(common);
  auto* others =
      static_cast<GENERAL_NAMES*>(::X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int n = 0; others != nullptr && n < ::OPENSSL_sk_num(reinterpret_cast<const OPENSSL_STACK*>(others));
       ++n) {
    const auto* name = static_cast<const GENERAL_NAME*>(
        ::OPENSSL_sk_value(reinterpret_cast<const OPENSSL_STACK*>(others), n));
    if (name->type != GEN_DNS) continue;
    out.emplace_back(reinterpret_cast<const char*>(::ASN1_STRING_get0_data(name->d.dNSName)),
                     static_cast<std::size_t>(::ASN1_STRING_length(name->d.dNSName)));
  }
  if (others != nullptr) ::GENERAL_NAMES_free(others);
  return out;
}

}  // namespace

std::string HttpRequest::query_value(std::string_view key) const {
  for (const auto& [name, value] : query) {
    if (name == key) return value;
  }
  return {};
}

struct HttpServer::State {
  State(const ControllerSettings& s, Handler h) : settings(s), handler(std::move(h)), workers(kWorkers) {}

  ControllerSettings settings;
  Handler handler;
  asio::io_context io{kIoThreads};
  asio::thread_pool workers;
  std::optional<asio::ssl::context> tls;
  tcp::acceptor acceptor{io};
  std::vector<std::thread> threads;
  std::atomic<std::size_t> connections{0};
  bool stopped = false;

  void set_up_tls();
  void listen();
  bool is_known(Secure& stream) const;
  asio::awaitable<HttpReply> handle(HttpRequest request);
  asio::awaitable<void> accept();
  asio::awaitable<void> begin(tcp::socket socket);
  template <typename Stream>
  asio::awaitable<void> serve(Stream& stream, bool known_client);
  template <typename Stream>
  asio::awaitable<void> drain(Stream& stream);
  template <typename Stream>
  asio::awaitable<void> send_events(Stream& stream, std::shared_ptr<EventStream> events);
};

void HttpServer::State::set_up_tls() {
  tls.emplace(asio::ssl::context::tls_server);
  ::SSL_CTX_set_min_proto_version(tls->native_handle(), TLS1_2_VERSION);
  const auto use = [](const std::filesystem::path& file, auto&& load) {
    ErrorCode code;
    load(code);
    if (code) {
      throw Error(Code::invalid_argument, "reading TLS files: " + file.string() + ": " + code.message(),
                  "it must be a readable PEM file");
    }
  };
  const auto& files = settings.tls;
  use(files.certificate,
      [&](ErrorCode& code) { tls->use_certificate_chain_file(files.certificate.string(), code); });
  use(files.key,
      [&](ErrorCode& code) { tls->use_private_key_file(files.key.string(), asio::ssl::context::pem, code); });
  if (files.client_ca.empty()) return;
  use(files.client_ca, [&](ErrorCode& code) { tls->load_verify_file(files.client_ca.string(), code); });
  const bool needed = settings.token_file.empty();
  tls->set_verify_mode(needed ? asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert
                              : asio::ssl::verify_peer);
}

void HttpServer::State::listen() {
  const ListenAddress address = parse_listen_address(settings.listen);
  const tcp::endpoint endpoint(asio::ip::make_address(address.host), address.port);
  ErrorCode code;
  acceptor.open(endpoint.protocol(), code);
  if (!code) acceptor.set_option(asio::socket_base::reuse_address(true), code);
  if (!code) acceptor.bind(endpoint, code);
  if (!code) acceptor.listen(asio::socket_base::max_listen_connections, code);
  if (code) {
    throw Error(Code::unavailable, "listening on " + settings.listen + ": " + code.message(),
                "set controller.listen to a free address of this host");
  }
}

bool HttpServer::State::is_known(Secure& stream) const {
  if (settings.tls.client_ca.empty()) return false;
  X509* certificate = ::SSL_get1_peer_certificate(stream.native_handle());
  if (certificate == nullptr) return false;
  const std::vector<std::string> names = names_of(certificate);
  ::X509_free(certificate);
  if (settings.tls.allow_names.empty()) return true;
  for (const std::string& name : names) {
    for (const std::string& allowed : settings.tls.allow_names) {
      if (name == allowed) return true;
    }
  }
  return false;
}

// The handler may wait for agents: it runs among the workers, and the connection's coroutine goes on where it
// was.
asio::awaitable<HttpReply> HttpServer::State::handle(HttpRequest request) {
  return asio::async_initiate<const asio::use_awaitable_t<>&, void(HttpReply)>(
      [this](auto done, HttpRequest in) {
        asio::post(workers, [this, done = std::move(done), in = std::move(in)]() mutable {
          HttpReply reply = handler(in);
          const auto executor = asio::get_associated_executor(done);
          asio::post(executor, [done = std::move(done), reply = std::move(reply)]() mutable {
            done(std::move(reply));
          });
        });
      },
      use_awaitable, std::move(request));
}

asio::awaitable<void> HttpServer::State::accept() {
  asio::steady_timer pause(io);
  for (;;) {
    ErrorCode code;
    tcp::socket socket =
        co_await acceptor.async_accept(asio::make_strand(io), asio::redirect_error(use_awaitable, code));
    if (code == asio::error::operation_aborted || !acceptor.is_open()) co_return;
    if (code) {  // out of descriptors, say: it passes
      log_warning("accepting a connection failed", {{"error", code.message()}});
      pause.expires_after(Millis(100));
      co_await pause.async_wait(asio::redirect_error(use_awaitable, code));
      continue;
    }
    if (connections >= kMaxConnections) continue;  // closed at once
    ++connections;
    const auto executor = socket.get_executor();
    asio::co_spawn(executor, begin(std::move(socket)), [this](std::exception_ptr) { --connections; });
  }
}

asio::awaitable<void> HttpServer::State::begin(tcp::socket socket) {
  ErrorCode code;
  socket.set_option(tcp::no_delay(true), code);
  if (!tls) {
    Plain stream(std::move(socket));
    co_await serve(stream, false);
    stream.socket().shutdown(tcp::socket::shutdown_send, code);
    co_return;
  }
  Secure stream(Plain(std::move(socket)), *tls);
  beast::get_lowest_layer(stream).expires_after(kIdle);
  co_await stream.async_handshake(asio::ssl::stream_base::server, asio::redirect_error(use_awaitable, code));
  if (code) co_return;
  co_await serve(stream, is_known(stream));
  beast::get_lowest_layer(stream).expires_after(Millis(1000));
  co_await stream.async_shutdown(asio::redirect_error(use_awaitable, code));
}

template <typename Stream>
asio::awaitable<void> HttpServer::State::serve(Stream& stream, bool known_client) {
  beast::flat_buffer buffer;
  auto& lowest = beast::get_lowest_layer(stream);
  for (;;) {
    http::request_parser<http::string_body> parser;
    parser.header_limit(kMaxHeaderBytes);
    parser.body_limit(kMaxBodyBytes);
    lowest.expires_after(kIdle);
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
      reply = co_await handle(read_request(request, known_client));
    } else if (code == http::error::body_limit) {
      reply = {413, "application/json",
               R"({"overLimit": {"code": 413, "message": "the request's body is too large"}})"};
    } else if (code == http::error::end_of_stream || code == asio::error::operation_aborted ||
               code == beast::error::timeout ||
               code.category() != http::make_error_code(http::error::bad_method).category()) {
      co_return;
    } else {
      reply = {400, "application/json",
               R"({"badRequest": {"code": 400, "message": "the request is not good HTTP"}})"};
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
      if (!code) co_await send_events(stream, reply.stream);
      co_return;
    }
    response.keep_alive(keep_alive);
    response.body() = std::move(reply.body);
    response.prepare_payload();
    if (head) response.body().clear();
    lowest.expires_after(kIdle);
    co_await http::async_write(stream, response, asio::redirect_error(use_awaitable, code));
    if (reply.status == 413) co_await drain(stream);
    if (code || !response.keep_alive()) co_return;
  }
}

// So that the client reads the answer before it learns that nobody reads on.
template <typename Stream>
asio::awaitable<void> HttpServer::State::drain(Stream& stream) {
  beast::get_lowest_layer(stream).expires_after(kDrain);
  std::vector<char> scratch(kDrainChunk);
  ErrorCode code;
  for (std::size_t total = 0; !code && total < kMostDrained;) {
    total +=
        co_await stream.async_read_some(asio::buffer(scratch), asio::redirect_error(use_awaitable, code));
  }
}

template <typename Stream>
asio::awaitable<void> HttpServer::State::send_events(Stream& stream, std::shared_ptr<EventStream> events) {
  auto& lowest = beast::get_lowest_layer(stream);
  const auto executor = lowest.get_executor();
  const auto timer = std::make_shared<asio::steady_timer>(executor);
  events->on_ready([timer, executor] { asio::post(executor, [timer] { timer->cancel(); }); });
  ErrorCode code;
  while (!code) {
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
  if (!settings.tls.certificate.empty()) state_->set_up_tls();
  state_->listen();
}

HttpServer::~HttpServer() {
  stop();
}

std::uint16_t HttpServer::port() const {
  return state_->acceptor.local_endpoint().port();
}

void HttpServer::start() {
  asio::co_spawn(state_->io, state_->accept(), asio::detached);
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

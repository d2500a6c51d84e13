#include "net/http_server.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <condition_variable>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "net/http_session.h"

#ifdef __GNUC__
// Asio's own allocation of coroutine frames, seen through inlining.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace guestagent {
namespace {

namespace asio = boost::asio;
using asio::use_awaitable;
using ErrorCode = boost::system::error_code;

constexpr unsigned kIoThreads = 2;
constexpr Millis kAcceptPause{100};

UniqueFd listen_tcp(const HttpServerSettings& settings) {
  const std::string doing = settings.listen_key + ": listen at " + settings.listen;
  const std::size_t colon = settings.listen.rfind(':');
  if (colon == std::string::npos) throw Error(Code::invalid_argument, doing + ": must be ADDRESS:PORT");
  std::string host = settings.listen.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int failed = ::getaddrinfo(host.c_str(), settings.listen.c_str() + colon + 1, &hints, &found))
    throw Error(Code::invalid_argument, doing + ": " + ::gai_strerror(failed));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owned(found, ::freeaddrinfo);
  UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(fd.get(), SOMAXCONN) != 0) {
    throw settings.listen_error(doing, errno);
  }
  return fd;
}

std::uint16_t port_of(int fd) {
  sockaddr_storage at{};
  socklen_t size = sizeof at;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) != 0) return 0;
  return ntohs(at.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(at).sin6_port
                                        : reinterpret_cast<sockaddr_in&>(at).sin_port);
}

std::string address_of(const sockaddr_storage& peer) {
  char text[NI_MAXHOST] = "";
  ::getnameinfo(reinterpret_cast<const sockaddr*>(&peer), sizeof peer, text, sizeof text, nullptr, 0, NI_NUMERICHOST);
  return text;
}

// One host has many addresses in IPv6: the first 64 bits tell hosts' networks apart.
std::string network_of(const sockaddr_storage& peer) {
  if (peer.ss_family != AF_INET6) return address_of(peer);
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr;
  return {reinterpret_cast<const char*>(v6.s6_addr), IN6_IS_ADDR_V4MAPPED(&v6) ? std::size_t{16} : std::size_t{8}};
}

// Strangers must not use up the descriptors that the Unix socket and a role's own work need.
HttpServerSettings within_descriptors(HttpServerSettings settings) {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && settings.limits.remote_in_all > files.rlim_cur / 4)
    settings.limits.remote_in_all = static_cast<unsigned>(files.rlim_cur / 4);
  return settings;
}

}  // namespace

std::string ReceivedRequest::query_value(std::string_view key) const {
  for (const auto& [name, value] : query) {
    if (name == key) return value;
  }
  return {};
}

struct HttpServer::State {
  using Listener = asio::posix::stream_descriptor;

  State(const HttpServerSettings& settings, Handler handler, Refuse refuse)
      : shared(settings, std::move(handler), std::move(refuse)), local(settings.local) {
    if (!settings.listen.empty()) {
      remote = listen_tcp(settings);
      shared.port = port_of(remote.get());
    }
  }

  ServerShared shared;  // outlives the connections, which io has
  UnixListener local;
  UniqueFd remote;
  asio::io_context io{kIoThreads};
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable left;
  std::set<std::shared_ptr<Connection>> connections;  // guarded by the mutex, as the next
  bool started = false, stopped = false;

  asio::awaitable<void> accept(int listening, bool is_local);
  void begin_local(Connection::Socket socket);
  void begin_remote(Connection::Socket socket, const sockaddr_storage& peer);
  void begin(const std::shared_ptr<Connection>& connection, const asio::any_io_executor& executor);
  void interrupt(bool tls_only);
};

asio::awaitable<void> HttpServer::State::accept(int listening, bool is_local) {
  Listener listener(io, ::fcntl(listening, F_DUPFD_CLOEXEC, 0));
  asio::steady_timer pause(io);
  ErrorCode code;
  while (!code && !shared.stopping) {
    co_await listener.async_wait(Listener::wait_read, asio::redirect_error(use_awaitable, code));
    if (code || shared.stopping) co_return;
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    // Of another than Asio's: its accept leaves the descriptor to children.
    UniqueFd fd(::accept4(listening, reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) continue;
      log_warning("a connection cannot be accepted", {{"error", system_error("accept", errno).what()}});
      pause.expires_after(kAcceptPause);  // it stays in the queue: no spinning
      co_await pause.async_wait(asio::redirect_error(use_awaitable, code));
      continue;
    }
    Connection::Socket socket(asio::make_strand(io));
    ErrorCode bad;
    const int family = is_local ? AF_UNIX : peer.ss_family;
    socket.assign(asio::generic::stream_protocol(family, is_local ? 0 : IPPROTO_TCP), fd.get(), bad);
    if (bad) continue;
    fd.release();
    try {
      is_local ? begin_local(std::move(socket)) : begin_remote(std::move(socket), peer);
    } catch (const std::exception& e) {
      log_warning("a connection failed", {{"error", e.what()}});
    }
  }
}

void HttpServer::State::begin_local(Connection::Socket socket) {
  const int fd = socket.native_handle();
  const auto executor = socket.get_executor();
  const Caller caller{Caller::Kind::local_user, "uid " + std::to_string(peer_user(fd))};
  std::optional<HttpFault> refusal;
  Seat seat;
  if (!local.allows(fd)) {
    log_warning("a local user was refused: neither in allow_users nor in allow_groups", {{"caller", caller.name}});
    refusal = HttpFault::not_allowed;
  } else {
    seat = Seat::take(shared.local, shared.limits.local + (UnixListener::is_own(fd) ? shared.limits.reserved : 0));
    if (!seat) refusal = HttpFault::too_many;
  }
  begin(std::make_shared<Connection>(shared, std::move(socket), std::move(seat), caller, refusal), executor);
}

void HttpServer::State::begin_remote(Connection::Socket socket, const sockaddr_storage& peer) {
  Seat seat = Seat::take(shared.remote_in_all, shared.limits.remote_in_all);
  if (!seat) return;  // closed at once
  const int on = 1;
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const auto executor = socket.get_executor();
  const Caller caller{Caller::Kind::nobody, address_of(peer)};
  begin(std::make_shared<Connection>(shared, std::move(socket), std::move(seat), caller, network_of(peer)), executor);
}

void HttpServer::State::begin(const std::shared_ptr<Connection>& connection, const asio::any_io_executor& executor) {
  {
    const std::lock_guard lock(mutex);
    connections.insert(connection);
  }
  asio::co_spawn(
      executor, [connection] { return connection->run(); },
      [this, connection](const std::exception_ptr& failure) {
        try {
          if (failure) std::rethrow_exception(failure);
        } catch (const std::exception& e) {
          log_error("a connection failed", {{"error", e.what()}});
        }
        const std::lock_guard lock(mutex);
        connections.erase(connection);
        left.notify_all();
      });
}

void HttpServer::State::interrupt(bool tls_only) {
  const std::lock_guard lock(mutex);
  for (const auto& connection : connections) {
    if (connection->is_tls() || !tls_only) connection->interrupt();
  }
}

HttpServer::HttpServer(HttpServerSettings settings, Handler handler, Refuse refuse)
    : state_(std::make_unique<State>(within_descriptors(std::move(settings)), std::move(handler), std::move(refuse))) {}

HttpServer::~HttpServer() {
  stop();
}

std::uint16_t HttpServer::port() const {
  return state_->shared.port;
}

void HttpServer::reload_tls() {
  state_->shared.tls.reload();
  state_->interrupt(true);
}

void HttpServer::start() {
  State& state = *state_;
  state.started = true;
  asio::co_spawn(state.io, state.accept(state.local.fd(), true), asio::detached);
  if (state.remote) asio::co_spawn(state.io, state.accept(state.remote.get(), false), asio::detached);
  for (unsigned n = 0; n < kIoThreads; ++n) state.threads.emplace_back([&state] { state.io.run(); });
}

void HttpServer::stop() {
  State& state = *state_;
  if (std::exchange(state.stopped, true)) return;
  state.shared.stopping = true;
  // Who comes back at once finds nobody rather than one who cuts him. (The Unix socket may be systemd's.)
  if (state.remote) ::shutdown(state.remote.get(), SHUT_RDWR);
  state.interrupt(false);
  if (state.started) {
    std::unique_lock lock(state.mutex);
    state.left.wait(lock, [&] { return state.connections.empty(); });
  }
  state.io.stop();
  for (std::thread& thread : state.threads) thread.join();
  state.shared.workers.stop();
}

}  // namespace guestagent

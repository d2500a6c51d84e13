#include "agent/server.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/beast/core/buffers_range.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "agent/listener.h"
#include "agent/transport.h"
#include "base/json.h"
#include "base/log.h"
#include "net/metrics_text.h"
#include "storage/snapshots.h"

namespace guestagent {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using ErrorCode = boost::system::error_code;
using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

constexpr std::uint32_t kMaxHeadBytes = 16384;
constexpr Seconds kHeartbeat{15};  // of an event stream in which nothing happens
constexpr Millis kEventWait{1000};
constexpr unsigned kMaxRefusing = 16;  // connections that are being told why not
constexpr Millis kRefusal{1000};

// A Transport as Beast's synchronous stream.
class Stream {
 public:
  explicit Stream(Transport& transport) : transport_(transport) {}

  template <typename Buffers>
  std::size_t read_some(const Buffers& buffers, ErrorCode& ec) {
    for (const auto buffer : beast::buffers_range_ref(buffers)) {
      if (buffer.size() > 0) return answer(transport_.read(buffer.data(), buffer.size(), end_), ec);
    }
    return 0;
  }
  template <typename Buffers>
  std::size_t write_some(const Buffers& buffers, ErrorCode& ec) {
    for (const auto buffer : beast::buffers_range_ref(buffers)) {
      if (buffer.size() > 0) return answer(transport_.write(buffer.data(), buffer.size(), end_), ec);
    }
    return 0;
  }
  template <typename Buffers>
  std::size_t read_some(const Buffers& buffers) {
    ErrorCode ec;
    const std::size_t n = read_some(buffers, ec);
    if (ec) throw boost::system::system_error(ec);
    return n;
  }
  template <typename Buffers>
  std::size_t write_some(const Buffers& buffers) {
    ErrorCode ec;
    const std::size_t n = write_some(buffers, ec);
    if (ec) throw boost::system::system_error(ec);
    return n;
  }

 private:
  std::size_t answer(std::size_t n, ErrorCode& ec) {
    ec = {};
    if (n > 0) return n;
    switch (end_) {
      case Transport::End::closed:
        ec = boost::asio::error::eof;
        break;
      case Transport::End::timed_out:
        ec = boost::asio::error::timed_out;
        break;
      case Transport::End::stopping:
        ec = boost::asio::error::operation_aborted;
        break;
      case Transport::End::broken:
        ec = boost::asio::error::connection_reset;
        break;
    }
    return 0;
  }
  Transport& transport_;
  Transport::End end_ = Transport::End::broken;
};

Response make_response(http::status status, std::string_view type, std::string body) {
  Response response(status, 11);
  response.set(http::field::server, "guestagent/" GUESTAGENT_VERSION);
  response.set(http::field::cache_control, "no-store");
  if (!body.empty()) response.set(http::field::content_type, beast::string_view(type.data(), type.size()));
  response.body() = std::move(body);
  return response;
}

Response refuse(http::status status, Code code, const std::string& message, const std::string& hint = {}) {
  return make_response(status, "application/json", "{\"error\":" + write_rpc_error(Error(code, message, hint)) + "}\n");
}

constexpr std::string_view kRoutes = "the routes are POST /rpc, GET /healthz, GET /metrics and GET /jobs/{id}/events";

// Of "/path?query", and of a proxy's "http://host/path?query".
std::string_view path_of(const Request& request) {
  std::string_view target(request.target().data(), request.target().size());
  if (target.starts_with("http://")) {
    target.remove_prefix(std::min(target.find('/', 7), target.size()));
  }
  return target.substr(0, target.find('?'));
}

Response wrong_method(const char* allowed) {
  Response response = refuse(http::status::method_not_allowed, Code::invalid_argument,
                             "only " + std::string(allowed) + " is answered here", std::string(kRoutes));
  response.set(http::field::allow, allowed);
  return response;
}

Response response_to(const ErrorCode& ec) {
  if (ec == boost::asio::error::timed_out) {
    return refuse(http::status::request_timeout, Code::deadline_exceeded, "the request did not come in time");
  }
  if (ec == http::error::body_limit) {
    return refuse(http::status::payload_too_large, Code::resource_exhausted, "the request's body is too large");
  }
  if (ec == http::error::header_limit) {
    return refuse(http::status::request_header_fields_too_large, Code::resource_exhausted,
                  "the request's head is too large");
  }
  return refuse(http::status::bad_request, Code::invalid_argument, "this is no HTTP request: " + ec.message(),
                std::string(kRoutes));
}

Response too_many() {
  log_warning("a connection was turned away: too many at a time");
  return refuse(http::status::service_unavailable, Code::resource_exhausted, "too many connections at a time",
                "try again");
}

// nullopt when there was none after all.
std::optional<UniqueFd> accept_one(int listener, sockaddr_storage* peer = nullptr) {
  socklen_t size = sizeof *peer;
  UniqueFd fd(::accept4(listener, reinterpret_cast<sockaddr*>(peer), peer ? &size : nullptr, SOCK_CLOEXEC));
  if (fd) return fd;
  if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
    log_warning("a connection cannot be accepted", {{"error", system_error("accept", errno).what()}});
    std::this_thread::sleep_for(Millis(100));  // it stays in the queue: no spinning
  }
  return std::nullopt;
}

// One host has many addresses in IPv6: the first 64 bits tell hosts' networks apart.
std::string address_of_peer(const sockaddr_storage& peer) {
  if (peer.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr;
    return {reinterpret_cast<const char*>(v6.s6_addr), IN6_IS_ADDR_V4MAPPED(&v6) ? std::size_t{16} : std::size_t{8}};
  }
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(peer).sin_addr;
  return {reinterpret_cast<const char*>(&v4), sizeof v4};
}

std::string event_of(const JobRecord& record) {
  JsonWriter out;
  out.begin_object()
      .member("state", record.state)
      .member("phase", record.phase)
      .member("bytes", record.progress.done_bytes);
  out.member_or_null("total", record.progress.total_bytes);
  out.member("rate", record.progress.rate).member_or_null("eta", record.progress.eta_s).end_object();
  return "event: progress\ndata: " + out.text() + "\n\n";
}

}  // namespace

struct Server::State {
  State(const AgentSettings& settings, Dispatcher& d, Jobs& j, Text m, ServerLimits l)
      : dispatcher(d),
        jobs(j),
        metrics(std::move(m)),
        limits(l),
        local(unix_access(settings)),
        wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!wake) throw system_error("make an event descriptor", errno);
    if (settings.listen.address.empty()) return;
    tls.emplace(settings.listen);
    remote = listen_tcp(settings.listen.address);
  }

  Dispatcher& dispatcher;
  Jobs& jobs;
  const Text metrics;
  const ServerLimits limits;
  UnixListener local;
  UniqueFd remote;
  std::optional<TlsContext> tls;
  UniqueFd wake;  // readable once the server stops
  std::mutex mutex;
  std::condition_variable idle;
  // What one listener has, so that it takes nothing from the other.
  struct Pool {
    unsigned connections = 0;
    unsigned refusing = 0;
  };
  // These are guarded by the mutex.
  Pool of_socket, of_network;
  unsigned all_strangers = 0;                 // network connections whose handshake is not done, …
  std::map<std::string, unsigned> strangers;  // … and of them those from one address
  std::list<std::thread> threads, ended;

  std::stop_token stop;

  // A place among `most`, given back when the answer dies; nullptr when there is none.
  using Seat = std::shared_ptr<void>;
  Seat take(unsigned& count, unsigned most);
  Seat take_strangers(const std::string& address);

  void accept_local();
  void accept_remote();
  void start(std::shared_ptr<Transport> transport, std::function<void(Transport&)> talk);
  void start_serving(Pool& pool, unsigned most, std::shared_ptr<Transport> transport, std::optional<Response> refusal);
  void refuse_softly(Transport& transport, const Response& response);
  void turn_away(Transport& transport, Response response);
  void join_ended();
  void serve(Transport& transport);
  bool serve_one(Transport& transport, beast::flat_buffer& buffer);
  Response answer(const Request& request, Transport& transport);
  void stream_events(Transport& transport, const std::string& job_id);
};

void Server::State::turn_away(Transport& transport, Response response) {
  Stream stream(transport);
  transport.expires_after(limits.request_timeout);
  response.keep_alive(false);
  response.prepare_payload();
  ErrorCode ec;
  http::write(stream, response, ec);
  transport.finish();
}

Server::State::Seat Server::State::take(unsigned& count, unsigned most) {
  const std::lock_guard lock(mutex);
  if (count >= most) return nullptr;
  ++count;
  return {&count, [this](unsigned* taken) {
            const std::lock_guard leaving(mutex);
            --*taken;
          }};
}

Server::State::Seat Server::State::take_strangers(const std::string& address) {
  const std::lock_guard lock(mutex);
  const auto of_one = strangers.find(address);
  if (all_strangers >= limits.strangers || (of_one != strangers.end() && of_one->second >= limits.strangers_of_one))
    return nullptr;
  ++all_strangers;
  ++strangers[address];
  return {&all_strangers, [this, address](unsigned* taken) {
            const std::lock_guard leaving(mutex);
            --*taken;
            if (--strangers[address] == 0) strangers.erase(address);
          }};
}

void Server::State::accept_local() {
  std::optional<UniqueFd> fd = accept_one(local.fd());
  if (!fd) return;
  std::optional<Response> refusal;
  if (!local.allows(fd->get())) {
    log_warning("a local user was refused: neither in agent.allow_users nor agent.allow_groups");
    refusal = refuse(http::status::forbidden, Code::permission_denied, "this user may not talk to the agent",
                     "add it to agent.allow_users or agent.allow_groups");
  }
  const unsigned most = limits.connections + (UnixListener::is_own(fd->get()) ? limits.reserved : 0);
  start_serving(of_socket, most, make_plain_transport(std::move(*fd), wake.get()), std::move(refusal));
}

void Server::State::accept_remote() {
  sockaddr_storage peer{};
  std::optional<UniqueFd> fd = accept_one(remote.get(), &peer);
  if (!fd) return;
  Seat stranger = take_strangers(address_of_peer(peer));
  if (!stranger) return;  // closed without a word: the handshake that a word needs is what is short
  start(tls->make_transport(std::move(*fd), wake.get()), [this, stranger](Transport& transport) mutable {
    Transport::End end;
    transport.expires_after(limits.handshake_timeout);
    if (!transport.establish(end)) return;
    stranger.reset();
    Seat seat = take(of_network.connections, limits.connections);
    if (seat) return serve(transport);
    seat = take(of_network.refusing, kMaxRefusing);
    if (seat) refuse_softly(transport, too_many());
  });
}

void Server::State::start_serving(Pool& pool, unsigned most, std::shared_ptr<Transport> transport,
                                  std::optional<Response> refusal) {
  if (!refusal) {
    if (Seat seat = take(pool.connections, most))
      return start(std::move(transport), [this, seat](Transport& t) { serve(t); });
    refusal = too_many();
  }
  Seat seat = take(pool.refusing, kMaxRefusing);
  if (!seat) return;
  start(std::move(transport),
        [this, seat, response = std::move(*refusal)](Transport& t) { refuse_softly(t, response); });
}

// The request is read first, as far as it comes: a peer that is cut while it still sends does not see the answer.
void Server::State::refuse_softly(Transport& transport, const Response& response) {
  char some[4096];
  Transport::End end;
  transport.expires_after(std::min(kRefusal, limits.request_timeout));
  transport.read(some, sizeof some, end);
  turn_away(transport, response);
}

void Server::State::start(std::shared_ptr<Transport> transport, std::function<void(Transport&)> talk) {
  const std::lock_guard lock(mutex);
  const auto self = threads.emplace(threads.end());
  try {
    *self = std::thread([this, self, transport, talk]() mutable {
      try {
        talk(*transport);
      } catch (const std::exception& e) {
        log_error("a connection failed", {{"error", e.what()}});
      }
      transport.reset();
      talk = nullptr;  // gives its seat back
      const std::lock_guard leaving(mutex);
      ended.splice(ended.end(), threads, self);
      idle.notify_all();
    });
  } catch (const std::system_error& e) {
    threads.erase(self);
    log_warning("a connection was turned away: no thread for it", {{"error", e.what()}});
  }
}

void Server::State::join_ended() {
  std::list<std::thread> joining;
  {
    const std::lock_guard lock(mutex);
    joining.swap(ended);
  }
  for (std::thread& thread : joining) thread.join();
}

void Server::State::serve(Transport& transport) {
  beast::flat_buffer buffer;
  while (!stop.stop_requested() && serve_one(transport, buffer)) {
  }
  transport.finish();
}

// False when the connection is to be closed.
bool Server::State::serve_one(Transport& transport, beast::flat_buffer& buffer) {
  Stream stream(transport);
  http::request_parser<http::string_body> parser;
  parser.header_limit(kMaxHeadBytes);
  parser.body_limit(limits.request_bytes);
  transport.expires_after(limits.request_timeout);

  ErrorCode ec;
  http::read_header(stream, buffer, parser, ec);
  if (!ec && beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    http::response<http::empty_body> go_on(http::status::continue_, 11);
    http::write(stream, go_on, ec);
  }
  if (!ec) http::read(stream, buffer, parser, ec);
  const bool nothing_came = !parser.got_some();
  if (ec == boost::asio::error::operation_aborted || ec == boost::asio::error::connection_reset || (ec && nothing_came))
    return false;
  if (ec) {
    turn_away(transport, response_to(ec));
    return false;
  }

  const Request request = parser.release();
  const std::string_view path = path_of(request);
  constexpr std::string_view kBefore = "/jobs/", kAfter = "/events";
  if (path.starts_with(kBefore) && path.ends_with(kAfter) && path.size() > kBefore.size() + kAfter.size() &&
      request.method() == http::verb::get && request.find(http::field::origin) == request.end()) {
    stream_events(transport, std::string(path.substr(kBefore.size(), path.size() - kBefore.size() - kAfter.size())));
    return false;
  }
  Response response = answer(request, transport);
  const bool keep = request.keep_alive() && !stop.stop_requested();
  response.version(request.version());
  response.keep_alive(keep);
  response.prepare_payload();
  transport.expires_after(limits.request_timeout);
  if (request.method() == http::verb::head) {
    http::response_serializer<http::string_body> head(response);
    head.split(true);
    http::write_header(stream, head, ec);
  } else {
    http::write(stream, response, ec);
  }
  return keep && !ec;
}

Response Server::State::answer(const Request& request, Transport& transport) {
  const std::string_view path = path_of(request);
  const bool get = request.method() == http::verb::get || request.method() == http::verb::head;
  if (request.find(http::field::origin) != request.end()) {
    return refuse(http::status::forbidden, Code::permission_denied, "requests of web pages are not answered");
  }
  try {
    if (path == "/rpc") {
      if (request.method() != http::verb::post) return wrong_method("POST");
      std::string text = dispatcher.handle(request.body(), [&] { return transport.peer_gone(); });
      if (text.empty()) return make_response(http::status::no_content, "", "");
      return make_response(http::status::ok, "application/json", std::move(text));
    }
    if (path == "/healthz") {
      if (!get) return wrong_method("GET, HEAD");
      return make_response(http::status::ok, "application/json",
                           "{\"status\":\"ok\",\"version\":\"" GUESTAGENT_VERSION "\"}\n");
    }
    if (path == "/metrics") {
      if (!get) return wrong_method("GET, HEAD");
      return make_response(http::status::ok, kMetricsType, metrics());
    }
    if (path.starts_with("/jobs/") && path.ends_with("/events")) return wrong_method("GET");
    return refuse(http::status::not_found, Code::not_found, "there is nothing at this path", std::string(kRoutes));
  } catch (const std::exception& e) {
    log_error("a request failed", {{"error", e.what()}});
    return refuse(http::status::internal_server_error, Code::internal, e.what());
  }
}

void Server::State::stream_events(Transport& transport, const std::string& job_id) {
  Stream stream(transport);
  std::uint64_t seen = 0;
  JobRecord record;
  try {
    record = jobs.wait_change(job_id, seen, Millis(0));
  } catch (const Error& e) {
    const bool known = e.code() != Code::not_found && e.code() != Code::invalid_argument;
    return turn_away(transport, refuse(known ? http::status::internal_server_error : http::status::not_found, e.code(),
                                       e.what(), e.hint()));
  }
  const auto send = [&](std::string_view text) {
    transport.expires_after(limits.request_timeout);
    ErrorCode ec;
    boost::asio::write(stream, boost::asio::buffer(text.data(), text.size()), ec);
    return !ec;
  };
  if (!send("HTTP/1.1 200 OK\r\nServer: guestagent/" GUESTAGENT_VERSION
            "\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n")) {
    return;
  }
  SteadyTime spoke = std::chrono::steady_clock::now();
  for (bool changed = true;;) {
    if (changed && !send(event_of(record))) return;
    if (record.ended()) {
      send("event: end\ndata: " + write_job(record, false) + "\n\n");
      return;
    }
    if (changed) spoke = std::chrono::steady_clock::now();
    if (std::chrono::steady_clock::now() - spoke > kHeartbeat) {
      if (!send(":\n\n")) return;
      spoke = std::chrono::steady_clock::now();
    }
    if (stop.stop_requested() || transport.peer_gone()) return;
    const std::uint64_t before = seen;
    record = jobs.wait_change(job_id, seen, kEventWait);
    changed = seen != before;
  }
}

Server::Server(const AgentSettings& settings, Dispatcher& dispatcher, Jobs& jobs, Text metrics, ServerLimits limits)
    : state_(std::make_unique<State>(settings, dispatcher, jobs, std::move(metrics), limits)) {}

Server::~Server() = default;

void Server::reload_tls() {
  if (state_->tls) state_->tls->reload();
}

void Server::run(std::stop_token stopped) {
  State& state = *state_;
  state.stop = stopped;
  const std::stop_callback on_stop(stopped, [&state] {
    const std::uint64_t one = 1;
    static_cast<void>(!::write(state.wake.get(), &one, sizeof one));
  });
  while (!stopped.stop_requested()) {
    pollfd fds[3] = {{state.wake.get(), POLLIN, 0}, {state.local.fd(), POLLIN, 0}, {state.remote.get(), POLLIN, 0}};
    if (::poll(fds, 3, -1) < 0 && errno != EINTR) throw system_error("wait for connections", errno);
    state.join_ended();
    if (fds[1].revents & POLLIN) state.accept_local();
    if (fds[2].revents & POLLIN) state.accept_remote();
  }
  {
    std::unique_lock lock(state.mutex);
    state.idle.wait(lock, [&] { return state.threads.empty(); });
  }
  state.join_ended();
}

}  // namespace guestagent

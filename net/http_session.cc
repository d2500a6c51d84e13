#include "net/http_session.h"

#include <poll.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http.hpp>

#include "base/log.h"
#include "base/text.h"
#include "net/http_message.h"

#ifdef __GNUC__
// Asio's own allocation of coroutine frames, seen through inlining.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace guestagent {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::redirect_error;
using asio::use_awaitable;
using ErrorCode = boost::system::error_code;

constexpr Millis kCutAgain{50};
constexpr Millis kLinger{1000}, kLongLinger{3000};
constexpr std::size_t kLingerBytes = std::size_t{16} << 20;
constexpr Millis kRefusalWait{1000};
constexpr unsigned kMostRefusing = 16;  // connections that are being told why not, on each listener

std::optional<HttpFault> fault_of_code(const ErrorCode& code) {
  if (code == http::error::body_limit) return HttpFault::body_too_large;
  if (code == http::error::header_limit) return HttpFault::head_too_large;
  if (code.category() == http::make_error_code(http::error::bad_method).category()) return HttpFault::bad_http;
  return std::nullopt;
}

}  // namespace

void Strangers::enter(const std::shared_ptr<Connection>& connection) {
  std::shared_ptr<Connection> leaves;
  {
    const std::lock_guard lock(mutex_);
    std::size_t same = 0;
    auto oldest = waiting_.end();
    for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
      if ((*it)->from() != connection->from()) continue;
      if (oldest == waiting_.end()) oldest = it;
      ++same;
    }
    if (same < of_one_) oldest = waiting_.size() >= in_all_ ? waiting_.begin() : waiting_.end();
    if (oldest != waiting_.end()) {
      leaves = *oldest;
      waiting_.erase(oldest);
    }
    waiting_.push_back(connection);
  }
  if (leaves) leaves->put_out();
}

void Strangers::leave(const Connection& connection) {
  const std::lock_guard lock(mutex_);
  waiting_.remove_if([&](const auto& waiting) { return waiting.get() == &connection; });
}

Connection::Connection(ServerShared& shared, Socket socket, Seat seat, Caller caller, std::optional<HttpFault> refusal)
    : shared_(shared),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      pause_(socket_.get_executor()),
      seat_(std::move(seat)),
      caller_(std::move(caller)),
      local_(true),
      refusal_(refusal) {}

Connection::Connection(ServerShared& shared, Socket socket, Seat seat, Caller caller, std::string from)
    : shared_(shared),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      pause_(socket_.get_executor()),
      socket_seat_(std::move(seat)),
      caller_(std::move(caller)),
      from_(std::move(from)),
      local_(false) {
  if (!shared.tls.on()) return;
  context_ = shared.tls.context(generation_);
  ::SSL_CTX_up_ref(context_.get());
  tls_context_.emplace(context_.get());
  tls_.emplace(socket_, *tls_context_);
}

void Connection::expires_after(Millis duration) {
  ++watch_;
  timed_out_ = false;
  timer_.expires_after(duration);
  watch();
}

void Connection::watch() {
  timer_.async_wait([there = weak_from_this(), mine = watch_](const ErrorCode& code) {
    const auto self = there.lock();
    if (code || !self || self->watch_ != mine) return;
    self->timed_out_ = !self->interrupted_;
    self->cut();
  });
}

// Again and again: between two steps of one operation there is nothing that could be cancelled.
void Connection::cut() {
  ErrorCode ignored;
  socket_.cancel(ignored);
  timer_.expires_after(kCutAgain);
  watch();
}

void Connection::interrupt() {
  asio::post(socket_.get_executor(), [there = weak_from_this()] {
    const auto self = there.lock();
    if (!self) return;
    self->pause_.cancel();
    if (self->writing_ && self->shared_.stopping) self->expires_after(self->for_answer());
    if (!self->waiting_) return;
    self->interrupted_ = true;
    ++self->watch_;
    self->cut();
  });
}

// What the certificate said then may not be so by the files that were read since.
bool Connection::outdated() const {
  return tls_ && generation_ != shared_.tls.generation();
}

bool Connection::ends() const {
  return shared_.stopping || put_out_ || outdated();
}

Millis Connection::for_answer() const {
  return shared_.stopping ? std::min(shared_.limits.farewell, shared_.limits.request) : shared_.limits.request;
}

// Of one that has proven who it is. False when there is no place for it.
bool Connection::admit() {
  if (local_ || seat_) return true;
  seat_ = Seat::take(shared_.remote, shared_.limits.remote);
  shared_.strangers.leave(*this);
  return static_cast<bool>(seat_);
}

// The handler may wait long: it has a thread, and the connection goes on where it was.
template <typename Result>
asio::awaitable<Result> Connection::by_worker(const std::function<Result()>& work, const Result& without_worker) {
  return asio::async_initiate<const asio::use_awaitable_t<>&, void(Result)>(
      [this, work, otherwise = without_worker](auto done) mutable {
        using Done = decltype(done);
        const auto shared_done = std::make_shared<Done>(std::move(done));
        const auto executor = socket_.get_executor();
        const auto give = [shared_done, executor](Result result) {
          asio::post(executor, [shared_done, result = std::move(result)]() mutable {
            Done finished = std::move(*shared_done);
            finished(std::move(result));
          });
        };
        if (!shared_.workers.run([give, work] { give(work()); })) {
          log_warning("a connection was turned away: no thread for it");
          give(std::move(otherwise));
        }
      },
      use_awaitable);
}

asio::awaitable<void> Connection::run() {
  const auto self = shared_from_this();
  ErrorCode code;
  if (refusal_) co_return co_await refuse_softly(socket_, *refusal_);
  if (!local_) {
    // Whatever ends it.
    struct Leaving {
      Connection& connection;
      ~Leaving() { connection.shared_.strangers.leave(connection); }
    } const leaving{*this};
    shared_.strangers.enter(self);
    if (tls_) {
      waiting_ = true;
      expires_after(shared_.limits.handshake);
      if (!ends()) co_await tls_->async_handshake(asio::ssl::stream_base::server, redirect_error(use_awaitable, code));
      waiting_ = false;
      if (code || ends()) {
        if (code && !shared_.strangers_speak && !interrupted_ && !timed_out_)
          log_warning("TLS handshake failed", {{"error", code.message()}});
        co_return;
      }
      if (const auto name = shared_.tls.client_name(tls_->native_handle())) {
        caller_ = {Caller::Kind::certificate, "certificate " + printable(*name) + " at " + caller_.name};
        if (!admit()) co_return co_await refuse_softly(*tls_, HttpFault::too_many);
      } else if (!shared_.strangers_speak) {
        co_return;
      }
      co_await serve(*tls_);
    } else {
      co_await serve(socket_);
    }
    co_return;
  }
  co_await serve(socket_);
}

template <typename Stream>
asio::awaitable<void> Connection::serve(Stream& stream) {
  beast::flat_buffer buffer;
  while (!ends() && co_await serve_one(stream, buffer)) {
  }
  co_await finish();
}

// So that the peer reads what it was sent before it learns that nobody reads on.
asio::awaitable<void> Connection::finish() {
  ErrorCode code;
  if (!interrupted_) {
    expires_after(large_ ? kLongLinger : kLinger);
    if (tls_) co_await tls_->async_shutdown(redirect_error(use_awaitable, code));
    socket_.shutdown(Socket::shutdown_send, code);
    std::vector<char> scratch(16384);
    for (std::size_t total = 0; !code && !timed_out_ && total < kLingerBytes;)
      total += co_await socket_.async_read_some(asio::buffer(scratch), redirect_error(use_awaitable, code));
  }
  expires_never();
  socket_.close(code);
}

// The request is read first, as far as it comes: a peer that is cut while it still sends does not see the answer.
template <typename Stream>
asio::awaitable<void> Connection::refuse_softly(Stream& stream, HttpFault fault) {
  const Seat seat = Seat::take(local_ ? shared_.local_refused : shared_.remote_refused, kMostRefusing);
  if (!seat) co_return;
  ErrorCode code;
  std::vector<char> scratch(4096);
  expires_after(std::min(kRefusalWait, shared_.limits.request));
  waiting_ = true;
  if (!ends()) co_await stream.async_read_some(asio::buffer(scratch), redirect_error(use_awaitable, code));
  waiting_ = false;
  const std::string why;
  co_await refuse(stream, fault, why);
  co_await finish();
}

template <typename Stream>
asio::awaitable<void> Connection::refuse(Stream& stream, HttpFault fault, const std::string& why) {
  std::optional<HttpReply> reply = shared_.refuse(fault, why);
  if (reply) co_await answer(stream, *reply, 11, false, false);
}

struct Connection::Received {
  ReceivedRequest request;
  unsigned version = 11;
  bool keep = false, head = false;
};

// False when the connection is to be closed.
template <typename Stream>
asio::awaitable<bool> Connection::receive(Stream& stream, beast::flat_buffer& buffer, Received& received) {
  http::request_parser<http::string_body> parser;
  parser.header_limit(static_cast<std::uint32_t>(shared_.limits.head_bytes));
  parser.body_limit(shared_.limits.body_bytes);
  expires_after(local_ || seat_ ? shared_.limits.request : shared_.limits.first_request);
  waiting_ = true;
  ErrorCode code;
  co_await http::async_read_header(stream, buffer, parser, redirect_error(use_awaitable, code));
  if (!code && beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    http::response<http::empty_body> go_on(http::status::continue_, 11);
    co_await http::async_write(stream, go_on, redirect_error(use_awaitable, code));
  }
  if (!code) co_await http::async_read(stream, buffer, parser, redirect_error(use_awaitable, code));
  waiting_ = false;
  // Asked after the wait, in which the files may have been read anew: what came is from a certificate that may be
  // revoked by now.
  if (interrupted_ || put_out_ || outdated()) co_return false;
  if (code) {
    const auto fault = timed_out_ ? std::optional(HttpFault::timed_out) : fault_of_code(code);
    if (!fault || !parser.got_some()) co_return false;
    large_ = *fault == HttpFault::body_too_large;
    const std::string why = code.message();
    co_await refuse(stream, *fault, why);
    co_return false;
  }
  expires_never();
  received.version = parser.get().version();
  received.keep = parser.get().keep_alive();
  received.head = parser.get().method() == http::verb::head;
  received.request = read_message(parser.release());
  co_return true;
}

template <typename Stream>
asio::awaitable<bool> Connection::serve_one(Stream& stream, beast::flat_buffer& buffer) {
  Received received;
  if (!co_await receive(stream, buffer, received)) co_return false;
  ReceivedRequest& request = received.request;
  request.caller = with_token(caller_, request.authorization, shared_.token);
  request.tls = is_tls();
  request.port = shared_.port;
  // All that TCP shows of a peer that has closed is that it sends no more.
  request.peer_gone = [fd = socket_.native_handle(), half = is_tls()] {
    pollfd look{fd, static_cast<short>(half ? POLLRDHUP : 0), 0};
    return ::poll(&look, 1, 0) > 0 && look.revents != 0;
  };
  if (request.caller.proven() && !admit()) {
    const std::string why;
    co_await refuse(stream, HttpFault::too_many, why);
    co_return false;
  }
  const bool keep = received.keep, head = received.head;
  const unsigned version = received.version;
  // Named, all of them: g++ 12 destroys some temporaries of a co_await twice.
  std::function<HttpReply()> work = [this, asked = std::make_shared<ReceivedRequest>(std::move(request))] {
    return shared_.handle(*asked);
  };
  HttpReply without_worker;
  without_worker.status = 0;
  HttpReply reply = co_await by_worker(work, without_worker);
  if (reply.status == 0) co_return false;
  if (reply.stream || reply.next) {
    co_await send_events(stream, reply);
    co_return false;
  }
  co_return co_await answer(stream, reply, version, head, keep && !ends());
}

// False when the connection is to be closed.
template <typename Stream>
asio::awaitable<bool> Connection::answer(Stream& stream, HttpReply& reply, unsigned version, bool head, bool keep) {
  http::response<http::string_body> response(static_cast<http::status>(reply.status), version);
  if (!reply.content_type.empty()) response.set(http::field::content_type, reply.content_type);
  for (const auto& [name, value] : reply.headers) response.set(name, value);
  response.body() = std::move(reply.body);
  response.keep_alive(keep);
  response.prepare_payload();
  if (head) response.body().clear();
  expires_after(for_answer());
  writing_ = true;
  ErrorCode code;
  co_await http::async_write(stream, response, redirect_error(use_awaitable, code));
  writing_ = false;
  expires_never();
  co_return keep && !code;
}

template <typename Stream>
asio::awaitable<void> Connection::send_events(Stream& stream, HttpReply& reply) {
  ErrorCode code;
  http::response<http::empty_body> start(http::status::ok, 11);
  start.set(http::field::content_type, "text/event-stream");
  start.set(http::field::cache_control, "no-store");
  for (const auto& [name, value] : reply.headers) start.set(name, value);
  start.keep_alive(false);  // its end is the connection's
  http::response_serializer<http::empty_body> serializer(start);
  expires_after(for_answer());
  writing_ = true;
  co_await http::async_write_header(stream, serializer, redirect_error(use_awaitable, code));
  if (reply.stream) {
    reply.stream->on_ready([there = weak_from_this(), executor = socket_.get_executor()] {
      asio::post(executor, [there] {
        if (const auto self = there.lock()) self->pause_.cancel();
      });
    });
  }
  while (!code && !ends()) {
    std::string frames;
    if (reply.next) {
      expires_never();
      const std::optional<std::string> none;
      std::optional<std::string> piece = co_await by_worker(reply.next, none);
      if (!piece) break;
      if (piece->empty()) continue;
      frames = std::move(*piece);
    } else if (frames = reply.stream->take(); frames.empty()) {
      if (reply.stream->closed()) break;
      expires_never();
      pause_.expires_after(shared_.limits.keep_alive);
      ErrorCode woken;
      co_await pause_.async_wait(redirect_error(use_awaitable, woken));
      if (woken) continue;
      frames = ": still here\n\n";
    }
    expires_after(for_answer());
    co_await asio::async_write(stream, asio::buffer(frames), redirect_error(use_awaitable, code));
  }
  writing_ = false;
  if (reply.stream) reply.stream->on_ready(nullptr);
}

}  // namespace guestagent

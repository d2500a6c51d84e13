// One connection of the server, from its handshake to its end. For http_server.cc only.
#pragma once

#include <openssl/ssl.h>
#include <utility>  // which Asio forgets

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <list>
#include <mutex>
#include <optional>

#include "net/handler_threads.h"
#include "net/http_server.h"
#include "net/http_tls.h"

namespace guestagent {

class Connection;

// Connections that have proven nothing yet. Thread-safe.
class Strangers {
 public:
  explicit Strangers(const HttpLimits& limits) : in_all_(limits.strangers), of_one_(limits.strangers_of_one) {}
  // Ends another where there is no place.
  void enter(const std::shared_ptr<Connection>& connection);
  // It is known now, or gone.
  void leave(const Connection& connection);

 private:
  const std::size_t in_all_, of_one_;
  std::mutex mutex_;
  std::list<std::shared_ptr<Connection>> waiting_;  // oldest first
};

// What all connections share.
struct ServerShared {
  ServerShared(const HttpServerSettings& s, HttpServer::Handler h, HttpServer::Refuse r)
      : limits(s.limits),
        token(s.token),
        strangers_speak(s.tls.strangers_speak),
        handle(std::move(h)),
        refuse(std::move(r)),
        tls(s.tls),
        strangers(s.limits),
        workers(s.limits.workers) {}
  const HttpLimits limits;
  const Secret token;
  const bool strangers_speak;
  const HttpServer::Handler handle;
  const HttpServer::Refuse refuse;
  std::uint16_t port = 0;
  ServerTls tls;
  Strangers strangers;
  HandlerThreads workers;
  std::atomic<bool> stopping{false};
  std::atomic<unsigned> local{0}, remote{0}, remote_in_all{0}, local_refused{0}, remote_refused{0};
};

// A place among some; given back at its end.
class Seat {
 public:
  Seat() = default;
  Seat(Seat&& other) noexcept : taken_(std::exchange(other.taken_, nullptr)) {}
  Seat& operator=(Seat&& other) noexcept {
    std::swap(taken_, other.taken_);
    return *this;
  }
  ~Seat() {
    if (taken_) --*taken_;
  }
  // None when there are `most` already.
  static Seat take(std::atomic<unsigned>& count, unsigned most) {
    Seat seat;
    if (++count > most) {
      --count;
    } else {
      seat.taken_ = &count;
    }
    return seat;
  }
  explicit operator bool() const { return taken_ != nullptr; }

 private:
  std::atomic<unsigned>* taken_ = nullptr;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Socket = boost::asio::generic::stream_protocol::socket;
  using Secure = boost::asio::ssl::stream<Socket&>;

  // By the Unix socket, with a place; `refusal`: all that it is told.
  Connection(ServerShared& shared, Socket socket, Seat seat, Caller caller, std::optional<HttpFault> refusal);
  // By TCP. `from` is what tells hosts apart.
  Connection(ServerShared& shared, Socket socket, Seat seat, Caller caller, std::string from);

  // Its whole life, on the socket's executor.
  boost::asio::awaitable<void> run();
  // These may be called from any thread. A request that is being handled is, to its end, but no more come.
  void interrupt();
  void put_out() {
    put_out_ = true;
    interrupt();
  }
  const std::string& from() const { return from_; }
  bool is_tls() const { return tls_.has_value(); }

 private:
  struct Received;
  using Code = boost::system::error_code;
  void expires_after(Millis duration);
  void expires_never() { ++watch_; }
  void watch();
  void cut();
  bool outdated() const;
  bool ends() const;
  bool admit();
  Millis for_answer() const;
  template <typename Stream>
  boost::asio::awaitable<void> serve(Stream& stream);
  template <typename Stream>
  boost::asio::awaitable<bool> serve_one(Stream& stream, boost::beast::flat_buffer& buffer);
  template <typename Stream>
  boost::asio::awaitable<bool> receive(Stream& stream, boost::beast::flat_buffer& buffer, Received& received);
  template <typename Stream>
  boost::asio::awaitable<bool> answer(Stream& stream, HttpReply& reply, unsigned version, bool head, bool keep);
  template <typename Stream>
  boost::asio::awaitable<void> refuse(Stream& stream, HttpFault fault, const std::string& why);
  template <typename Stream>
  boost::asio::awaitable<void> refuse_softly(Stream& stream, HttpFault fault);
  template <typename Stream>
  boost::asio::awaitable<void> send_events(Stream& stream, HttpReply& reply);
  boost::asio::awaitable<void> finish();
  template <typename Result>
  boost::asio::awaitable<Result> by_worker(const std::function<Result()>& work, const Result& without_worker);

  ServerShared& shared_;
  Socket socket_;
  boost::asio::steady_timer timer_;  // of the deadline
  boost::asio::steady_timer pause_;  // of an event stream
  std::uint64_t watch_ = 0;          // which deadline holds
  bool timed_out_ = false, interrupted_ = false;
  bool waiting_ = false;  // for a peer to say something: what an interrupt ends
  bool writing_ = false;
  bool large_ = false;  // more than usual may still come
  std::atomic<bool> put_out_{false};
  Seat socket_seat_, seat_;
  Caller caller_;
  std::string from_;
  const bool local_;
  std::optional<HttpFault> refusal_;
  std::shared_ptr<SSL_CTX> context_;
  unsigned generation_ = 0;
  std::optional<boost::asio::ssl::context> tls_context_;
  std::optional<Secure> tls_;
};

}  // namespace guestagent

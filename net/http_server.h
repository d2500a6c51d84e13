// HTTP/1.1 for both roles: on a Unix socket, and by TCP, plain or with TLS. A role gives a handler, its words for what
// is refused before the handler is asked, and its limits. Boost.Beast and Asio are confined to net/http_s*.
//
// The two listeners share nothing that the one could use up for the other. Nobody costs a thread but while a handler
// works for him.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "net/caller.h"
#include "net/unix_listener.h"

namespace guestagent {

struct ReceivedRequest {
  std::string method, path;                                // without the query, percent-decoded
  std::vector<std::pair<std::string, std::string>> query;  // decoded
  std::string body;
  std::string host, authorization, accept, idempotency_key, last_event_id;
  std::optional<std::string> origin;
  std::string not_once;  // the first of Host (which must be there), Origin, Authorization, Idempotency-Key that is not
  Caller caller;
  bool tls = false;
  std::uint16_t port = 0;           // of the TCP listener
  std::function<bool()> peer_gone;  // true once the client has hung up; while the handler works only
  bool local() const { return caller.kind == Caller::Kind::local_user; }
  std::string query_value(std::string_view key) const;
};

// Server-sent events that come by themselves. Thread-safe.
class EventSource {
 public:
  virtual ~EventSource() = default;
  // What is to be sent now; empty: nothing. After closed() nothing comes any more.
  virtual std::string take() = 0;
  virtual bool closed() const = 0;
  // Called from any thread when there is something to take, or the source was closed.
  virtual void on_ready(std::function<void()> wake) = 0;
};

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";  // empty: none is told
  std::string body = {};
  std::vector<std::pair<std::string, std::string>> headers = {};
  // With one of these server-sent events follow instead of the body. `next` may wait a second or so, and is called as a
  // handler is until it answers nullopt.
  std::shared_ptr<EventSource> stream = nullptr;
  std::function<std::optional<std::string>()> next = nullptr;
};

// Why a request does not come to the handler.
enum class HttpFault { bad_http, head_too_large, body_too_large, timed_out, too_many, not_allowed };

struct HttpLimits {
  std::size_t head_bytes = 32 << 10, body_bytes = 1 << 20;
  unsigned workers = 8;  // requests that are handled at a time; the others wait
  unsigned local = 128,
           remote = 512;  // connections at a time: by the Unix socket; by TCP of those who have proven who they are
  unsigned remote_in_all = 512;  // more are closed at once
  // Local ones of root and the own user beyond those: who may set things right always gets in.
  unsigned reserved = 0;
  // By TCP of those who have proven nothing yet: in all, and from one address (of IPv6: network). Who comes when all
  // places are taken gets that of the one who has waited longest (from the same address, where that has all of its
  // own).
  std::size_t strangers = 128, strangers_of_one = 32;
  Millis handshake{5000};
  Millis first_request{10000};  // for one of a stranger to come in whole
  Millis request{60000};        // between two, and for one to come in whole; also for an answer to be taken
  Millis farewell{1000};        // the same for an answer once the server stops
  Millis keep_alive{15000};     // between two comments on a silent EventSource
};

struct HttpTls {
  std::string section;                   // of the configuration, for errors: "agent.listen"
  fs::path certificate, key;             // none: plain HTTP
  fs::path client_ca, client_crl;        // none: no certificate is asked for; nothing revoked is looked for
  std::vector<std::string> allow_names;  // common or DNS names of clients' certificates; empty: any
  bool certificate_needed = true;        // in the handshake
  bool strangers_speak = false;          // who has shown none, or none with an allowed name, is heard all the same
};

struct HttpServerSettings {
  UnixAccess local;
  std::string listen_key;  // of the next in the configuration, for errors: "controller.listen"
  std::string listen;      // "127.0.0.1:8779", "[::]:8443"; empty: off
  // Why it cannot be listened at, from what was done and errno.
  std::function<Error(std::string_view doing, int why)> listen_error = system_error;
  HttpTls tls;
  Secret token;  // that lets callers by TCP in; empty: none
  HttpLimits limits;
};

class HttpServer {
 public:
  // Called from several threads at once; must not throw.
  using Handler = std::function<HttpReply(const ReceivedRequest&)>;
  // The answer; nullopt: the connection is closed without a word. Must not throw or wait. `why` is for bad_http.
  using Refuse = std::function<std::optional<HttpReply>(HttpFault fault, const std::string& why)>;

  // Listens at once. Throws Error: listen_error, already_exists when somebody listens at the socket, invalid_argument
  // when a TLS file cannot be used.
  HttpServer(HttpServerSettings settings, Handler handler, Refuse refuse);
  ~HttpServer();  // stops
  // The TCP port that it listens on (also where the settings say 0); 0: none.
  std::uint16_t port() const;
  // Reads the TLS files again: for new connections, and those that are there end after their answer. Throws Error, and
  // goes on with what it had. Thread-safe.
  void reload_tls();
  void start();
  // A request that is being handled gets its answer, all else ends now. Handlers must come to an end by themselves.
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent

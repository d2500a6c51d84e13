// HTTP/1.1 for the controller's API: on a Unix socket, and by TCP, plain or with TLS. Boost.Beast is confined to
// http_server.cc.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/controller_settings.h"
#include "controller/event_hub.h"

namespace guestagent::controller {

struct ReceivedRequest {
  std::string method, path;                                // without the query, percent-decoded
  std::vector<std::pair<std::string, std::string>> query;  // decoded
  std::string body;
  std::string host, origin, authorization, accept, idempotency_key, last_event_id;
  bool local = false;         // by the Unix socket, from a user who may use it
  bool known_client = false;  // it showed a certificate of the client CA, with an allowed name
  bool tls = false;
  std::uint16_t port = 0;          // of the TCP listener
  bool loopback_listener = false;  // nobody on another host reaches it
  std::string
      caller;  // who it is, as far as the connection tells: "uid 1000", "CERTIFICATE NAME at ADDRESS", "ADDRESS"
  std::string query_value(std::string_view key) const;
};

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::shared_ptr<EventStream> stream = nullptr;  // then what it gives follows instead of the body
  bool known = false;  // the caller has proven that it may use the API: its connection is one of those that may stay
};

// Connections of strangers: few, and for a short time. Who comes when all places are taken gets that of the one who has
// waited longest (from the same address, where that has all of its own). Not thread-safe by itself: see HttpServer.
struct StrangerLimits {
  std::size_t in_all = 128, of_address = 32;
};

class HttpServer {
 public:
  // Called from several threads at once; must not throw.
  using Handler = std::function<HttpReply(const ReceivedRequest&)>;

  static constexpr std::size_t kMaxHeaderBytes = 32 << 10;
  static constexpr std::size_t kMaxBodyBytes = 1 << 20;
  static constexpr std::size_t kMostRemote = 512;  // connections by TCP; the Unix socket has places of its own
  static constexpr std::size_t kMostLocal = 128;
  static constexpr Millis kHandshake{5000};
  static constexpr Millis kFirstRequest{10000};  // of somebody who has not proven yet that he may ask
  static constexpr Millis kIdle{60000};          // of a connection between requests, and for a request to come in whole
  static constexpr Millis kKeepAlive{15000};     // between two comments on a silent event stream

  // Listens at once. Throws Error: unavailable when the address is taken, already_exists when somebody listens at the
  // socket, invalid_argument when a TLS file cannot be used.
  HttpServer(const ControllerSettings& settings, Handler handler);
  ~HttpServer();  // stops
  // The TCP port that it listens on (also where the settings say 0); 0: none.
  std::uint16_t port() const;
  // Reads the TLS files again: for new connections, and those that are there end after their next answer. Throws Error,
  // and goes on with what it had. Thread-safe.
  void reload_tls();
  void start();
  // Ends every connection. Event streams must have been closed.
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent::controller

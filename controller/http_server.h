// HTTP/1.1 for the controller's API, plain or with TLS. Boost.Beast is confined to http_client.cc and
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

struct HttpRequest {
  std::string method, path;                                // without the query, percent-decoded
  std::vector<std::pair<std::string, std::string>> query;  // decoded
  std::string body;
  std::string host, origin, authorization, accept, idempotency_key, last_event_id;
  bool known_client = false;  // it showed a certificate of the client CA, with an allowed name
  std::string query_value(std::string_view key) const;
};

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::shared_ptr<EventStream> stream = nullptr;  // then what it gives follows instead of the body
};

class HttpServer {
 public:
  // Called from several threads at once; must not throw.
  using Handler = std::function<HttpReply(const HttpRequest&)>;

  static constexpr std::size_t kMaxHeaderBytes = 32 << 10;
  static constexpr std::size_t kMaxBodyBytes = 1 << 20;
  static constexpr std::size_t kMaxConnections = 1024;
  static constexpr Millis kIdle{
      60000};  // of a connection between requests, and for a request to come in whole
  static constexpr Millis kKeepAlive{15000};  // between two comments on a silent event stream

  // Listens at once. Throws Error: unavailable when the address is taken, invalid_argument when a TLS file
  // cannot be used.
  HttpServer(const ControllerSettings& settings, Handler handler);
  ~HttpServer();  // stops
  // The port that it listens on (also where the settings say 0).
  std::uint16_t port() const;
  void start();
  // Ends every connection. Event streams must have been closed.
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent::controller

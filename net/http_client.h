// HTTP/1.1 to stores, agents and controllers: the one client, and the one place that knows curl.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "net/answer_reader.h"
#include "net/http_error.h"
#include "net/name_lookup.h"

namespace guestagent {

struct HttpRequest {
  std::string what;  // "put segment-00000001": how errors begin
  std::string method;
  std::string url = {};          // http or https
  HttpHeaders headers = {};      // may hold credentials: they are in no error and no log
  const Buffer* body = nullptr;  // outlives the request; read as often as it has to be sent
  std::uint64_t max_answer = 1 << 20;
  // An answer that comes byte by byte for as long as the server works is no stall (a "heartbeat").
  bool trickles = false;
  // Never sent twice: a kept connection that breaks without an answer is an error here, where it is otherwise
  // sent again at once on a new one. For requests whose second answer differs from the first.
  bool once = false;
  fs::path socket = {};  // a Unix socket that it is sent to, whatever host the URL names
  Millis timeout{0};     // for all of it, finding out the name included; 0: none
  // Takes the body of a success as it comes, instead of the answer and without its limit; false: no more is wanted.
  std::function<bool(Bytes)> on_body = nullptr;
};

struct HttpClientOptions {
  Millis connect_timeout{10000};
  Millis stall{30000};                  // without a byte moved; never a limit on the whole transfer; 0: none
  fs::path ca_file = {};                // empty: the system's
  fs::path certificate = {}, key = {};  // empty: none shown
  bool insecure = false;                // certificates are not verified
  // Whose process must serve a Unix socket that is connected to; nullopt: anybody's.
  std::optional<std::vector<uid_t>> socket_users = std::nullopt;
  Resolver resolver = resolve_by_system;
  std::size_t kept = 16;  // connections kept for the next request, of each server …
  Seconds kept_for{118};  // … and for how long
  long transfer_buffer = 256 << 10;
  HttpHints hints = {};
};

// Thread-safe; each request uses a connection of its own from a pool of kept ones. Certificates are verified
// unless told not to. What there is is asked for as it is, without a content coding. Redirects are not followed, no
// proxy of the environment is used, nothing but http and https is spoken.
class HttpClient {
 public:
  // Connects to nothing, and reads no file: each new connection does.
  explicit HttpClient(HttpClientOptions options);
  ~HttpClient();

  // The server's answer, whatever its status. Throws HttpError, all retryable unavailable but these:
  // failed_precondition for an answer that was compressed on the way, and for a server that speaks no TLS; cancelled
  // when `stop` is requested; deadline_exceeded after `timeout`; resource_exhausted for a success larger than
  // `max_answer`; permission_denied when TLS refuses one side's certificate, and for a Unix socket that may not be
  // opened or that a process of somebody else serves. Time: connecting and the silence of a connection have limits, a
  // transfer that moves has none but `timeout`. What `on_body` throws comes out as it is.
  HttpResponse send(const HttpRequest& request, std::stop_token stop);

 private:
  struct Handle;
  struct Transfer;
  struct Kept;
  HttpResponse send_once(const HttpRequest& request, const std::stop_token& stop);
  void find_host(Transfer& transfer, const std::stop_token& stop);
  void set_options(Transfer& transfer) const;
  void set_tls(Transfer& transfer) const;
  void run(Transfer& transfer, const std::stop_token& stop) const;
  std::unique_ptr<Handle> take(const std::string& server);
  void give(const std::string& server, std::unique_ptr<Handle> handle);

  const HttpClientOptions options_;
  NameLookup names_;
  std::mutex mutex_;
  std::map<std::string, std::vector<Kept>> idle_;
  // Cleared by the first large body that was taken without a "100 Continue", since waiting for one would cost time on
  // each, and by the first answer 417.
  std::atomic<bool> expect_continue_{true};
};

}  // namespace guestagent

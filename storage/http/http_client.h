// HTTP/1.1 for the stores: the one place that knows curl.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/settings.h"
#include "storage/http/answer_reader.h"
#include "storage/object_store.h"

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
};

// Thread-safe; each request uses a connection of its own from a pool of kept ones. Certificates are verified
// unless told not to. What is stored is asked for as it is, without a content coding. Redirects are not followed, no
// proxy of the environment is used, nothing but http and https is spoken.
class HttpClient {
 public:
  // Connects to nothing.
  HttpClient(const HttpTimeouts& timeouts, const TlsClientSettings& tls);
  ~HttpClient();

  // The server's answer, whatever its status. Throws StoreError, all retryable unavailable but these:
  // failed_precondition for an answer that was compressed on the way, and for a server that speaks no TLS; cancelled
  // when `stop` is requested; resource_exhausted for a success larger than `max_answer`; permission_denied when the
  // certificate is not to be trusted. Time: connecting and the silence of a connection have limits, a transfer that
  // moves has none.
  HttpResponse send(const HttpRequest& request, std::stop_token stop);

 private:
  struct Handle;
  struct Transfer;
  HttpResponse send_once(const HttpRequest& request, const std::stop_token& stop);
  void set_options(Transfer& transfer) const;
  void run(Transfer& transfer, const std::stop_token& stop) const;
  std::unique_ptr<Handle> take();
  void give(std::unique_ptr<Handle> handle);

  const HttpTimeouts timeouts_;
  const TlsClientSettings tls_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Handle>> idle_;
  // Cleared by the first large body that was taken without a "100 Continue", since waiting for one would cost time on
  // each, and by the first answer 417.
  std::atomic<bool> expect_continue_{true};
};

}  // namespace guestagent

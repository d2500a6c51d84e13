#include "storage/http/http_client.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "base/text.h"
#include "storage/http/curl_failure.h"
#include "storage/http/http_errors.h"
#include "storage/url.h"

namespace guestagent {
namespace {

constexpr std::size_t kMaxIdle = 16;
constexpr long kTransferBuffer = 256 << 10;
// Below this a wasted upload costs less than waiting for leave to send it.
constexpr std::uint64_t kExpectFrom = 1 << 20;
// Fewer than these bytes within the stall time are a stall: a peer that trickles must not hold a transfer for
// years.
constexpr std::uint64_t kLeastProgress = 1024;

void start_curl() {
  static const CURLcode once = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (once != CURLE_OK) throw Error(Code::internal, "starting libcurl: " + std::string(curl_easy_strerror(once)));
}

struct HeaderList {
  curl_slist* list = nullptr;
  HeaderList() = default;
  HeaderList(const HeaderList&) = delete;
  HeaderList& operator=(const HeaderList&) = delete;
  ~HeaderList() { curl_slist_free_all(list); }
  void add(const std::string& line) {
    curl_slist* longer = curl_slist_append(list, line.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    list = longer;
  }
};

}  // namespace

// One curl handle with its kept connections, used by one request at a time.
struct HttpClient::Handle {
  CURL* easy = curl_easy_init();
  CURLM* multi = curl_multi_init();
  Handle() {
    if (easy == nullptr || multi == nullptr) throw std::bad_alloc();
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    curl_easy_cleanup(easy);
    curl_multi_cleanup(multi);
  }
};

// The state of one request while curl calls back.
struct HttpClient::Transfer {
  Transfer(const HttpRequest& r, Handle& h) : request(r), handle(h), answer(r.max_answer) {
    if (request.body != nullptr) chunks = request.body->chunks();
  }
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;
  // The handle lives on, and must not write here when it closes its connections.
  ~Transfer() { curl_easy_reset(handle.easy); }

  const HttpRequest& request;
  Handle& handle;
  AnswerReader answer;
  HeaderList headers;
  std::vector<Bytes> chunks;
  std::size_t chunk = 0, offset = 0;  // what is sent next
  unsigned sent = 0;
  char detail[CURL_ERROR_SIZE] = {};

  std::size_t read(char* to, std::size_t room) {
    std::size_t done = 0;
    while (done < room && chunk < chunks.size()) {
      const Bytes rest = chunks[chunk].subspan(offset);
      const std::size_t n = std::min(rest.size(), room - done);
      std::memcpy(to + done, rest.data(), n);
      done += n;
      offset += n;
      if (offset == chunks[chunk].size()) {
        ++chunk;
        offset = 0;
      }
    }
    return done;
  }

  bool seek(std::uint64_t to) {
    for (chunk = 0; chunk < chunks.size() && to >= chunks[chunk].size(); ++chunk) to -= chunks[chunk].size();
    offset = static_cast<std::size_t>(to);
    return chunk < chunks.size() || to == 0;
  }

  std::uint64_t moved() const {
    curl_off_t up = 0;
    curl_easy_getinfo(handle.easy, CURLINFO_SIZE_UPLOAD_T, &up);
    return static_cast<std::uint64_t>(up) + answer.received();
  }

  std::string peer() const {
    const auto url = parse_url(std::string_view(request.url).substr(0, request.url.find('?')));
    return url ? url->origin() : "the server";
  }

  StoreError error(Code code, const std::string& why, std::string brief, bool retryable = true,
                   std::string hint = {}) const {
    if (hint.empty() && code == Code::unavailable)
      hint = "check that " + peer() + " is up and can be reached from this host";
    return StoreError(code, request.what + ": " + peer() + ": " + why, std::move(hint), retryable, std::nullopt,
                      std::move(brief));
  }
};

namespace {

// An exception must not pass through curl's frames; memory is all that can fail in these.
template <typename F>
auto guarded(F&& f, decltype(f()) otherwise) noexcept {
  try {
    return f();
  } catch (...) {
    return otherwise;
  }
}

// Unsent bytes wait in curl, not in the kernel: else a slow link drains megabytes after the last "progress"
// and looks stalled.
int limit_unsent(void*, curl_socket_t socket, curlsocktype) {
  const int bytes = 256 << 10;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes);
  return CURL_SOCKOPT_OK;
}

template <typename T>
void set(CURL* easy, CURLoption option, T value) {
  const CURLcode result = curl_easy_setopt(easy, option, value);
  if (result != CURLE_OK)
    throw Error(Code::internal, "libcurl option " + std::to_string(option) + ": " + curl_easy_strerror(result));
}

}  // namespace

HttpClient::HttpClient(const HttpTimeouts& timeouts, const TlsClientSettings& tls) : timeouts_(timeouts), tls_(tls) {
  start_curl();
  if (tls_.insecure)
    log_warning(
        "certificates of the store are not verified (tls.insecure): anybody on the way can read and change "
        "what is sent");
}

HttpClient::~HttpClient() = default;

std::unique_ptr<HttpClient::Handle> HttpClient::take() {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return std::make_unique<Handle>();
  auto handle = std::move(idle_.back());
  idle_.pop_back();
  return handle;
}

void HttpClient::give(std::unique_ptr<Handle> handle) {
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kMaxIdle) idle_.push_back(std::move(handle));
}

void HttpClient::set_options(Transfer& transfer) const {
  CURL* easy = transfer.handle.easy;
  const HttpRequest& request = transfer.request;
  curl_easy_reset(easy);
  set(easy, CURLOPT_URL, request.url.c_str());
  set(easy, CURLOPT_ERRORBUFFER, transfer.detail);
  set(easy, CURLOPT_NOSIGNAL, 1L);
  set(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  set(easy, CURLOPT_FOLLOWLOCATION, 0L);
  set(easy, CURLOPT_PROXY, "");
  set(easy, CURLOPT_NETRC, long{CURL_NETRC_IGNORED});
  set(easy, CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  set(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(std::max<Millis::rep>(timeouts_.connect.count(), 1)));
  set(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  set(easy, CURLOPT_BUFFERSIZE, kTransferBuffer);
  set(easy, CURLOPT_UPLOAD_BUFFERSIZE, kTransferBuffer);
  set(easy, CURLOPT_SOCKOPTFUNCTION, limit_unsent);
  set(easy, CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
  if (!tls_.ca_file.empty()) set(easy, CURLOPT_CAINFO, tls_.ca_file.c_str());
  if (tls_.insecure) {
    set(easy, CURLOPT_SSL_VERIFYPEER, 0L);
    set(easy, CURLOPT_SSL_VERIFYHOST, 0L);
  }

  using Read = std::size_t (*)(char*, std::size_t, std::size_t, void*);
  const Read read = [](char* to, std::size_t size, std::size_t n, void* t) {
    return static_cast<Transfer*>(t)->read(to, size * n);
  };
  const Read header = [](char* from, std::size_t size, std::size_t n, void* t) {
    const auto take_line = [&] { return static_cast<Transfer*>(t)->answer.header_line({from, size * n}); };
    return guarded(take_line, false) ? size * n : 0;
  };
  const Read write = [](char* from, std::size_t size, std::size_t n, void* t) {
    const auto take_bytes = [&] { return static_cast<Transfer*>(t)->answer.body_bytes(as_bytes({from, size * n})); };
    return guarded(take_bytes, false) ? size * n : 0;
  };
  using Prepare = int (*)(void*, char*, char*, int, int);
  const Prepare prepare = [](void* t, char*, char*, int, int) {
    auto* self = static_cast<Transfer*>(t);
    // After a 417 nothing has been done: curl sends it again, without the question.
    const bool again = ++self->sent > 1 && !self->answer.no_leave();
    return again && self->request.once ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
  };
  set(easy, CURLOPT_PREREQFUNCTION, prepare);
  set(easy, CURLOPT_PREREQDATA, &transfer);
  using Seek = int (*)(void*, curl_off_t, int);
  const Seek seek = [](void* t, curl_off_t to, int origin) {
    const bool done = origin == SEEK_SET && to >= 0 && static_cast<Transfer*>(t)->seek(static_cast<std::uint64_t>(to));
    return done ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_FAIL;
  };
  set(easy, CURLOPT_READFUNCTION, read);
  set(easy, CURLOPT_READDATA, &transfer);
  set(easy, CURLOPT_SEEKFUNCTION, seek);
  set(easy, CURLOPT_SEEKDATA, &transfer);
  set(easy, CURLOPT_HEADERFUNCTION, header);
  set(easy, CURLOPT_HEADERDATA, &transfer);
  set(easy, CURLOPT_WRITEFUNCTION, write);
  set(easy, CURLOPT_WRITEDATA, &transfer);

  const std::uint64_t size = request.body != nullptr ? request.body->size() : 0;
  if (request.method == "HEAD") {
    set(easy, CURLOPT_NOBODY, 1L);
  } else if (request.method == "PUT") {
    set(easy, CURLOPT_UPLOAD, 1L);
    set(easy, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(size));
  } else if (request.method == "POST") {
    set(easy, CURLOPT_POST, 1L);
    set(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(size));
  } else {
    set(easy, CURLOPT_HTTPGET, 1L);
    set(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
  for (const auto& [name, value] : request.headers) {
    if (value.find_first_of("\r\n") != std::string::npos)
      throw Error(Code::internal, "header " + name + ": has a line break");
    transfer.headers.add(value.empty() ? name + ";" : name + ": " + value);
  }
  // What is compressed on the way has neither the length nor the digest of what is stored.
  transfer.headers.add("Accept-Encoding: identity");
  // Where it may, curl asks for leave to send the body, and sends it without asking when the question is refused (417).
  if (size < kExpectFrom || !expect_continue_) transfer.headers.add("Expect:");
  set(easy, CURLOPT_EXPECT_100_TIMEOUT_MS, 1000L);
  set(easy, CURLOPT_HTTPHEADER, transfer.headers.list);
}

HttpResponse HttpClient::send(const HttpRequest& request, std::stop_token stop) {
  const bool may_ask = request.body != nullptr && request.body->size() >= kExpectFrom && expect_continue_;
  HttpResponse response = send_once(request, stop);
  if (response.status == 417 && may_ask) {
    expect_continue_ = false;
    response = send_once(request, stop);
  }
  const std::string_view coding = response.header("content-encoding").value_or("");
  if (response.ok() && !response.body.empty() && !coding.empty() && coding != "identity" && coding != "aws-chunked") {
    throw StoreError(Code::failed_precondition,
                     request.what + ": " + server_of(request.url) + ": answered with Content-Encoding: " +
                         printable(coding, 40) + ", although only what is stored was asked for",
                     "a proxy on the way changes what the store sends: let it pass answers as they are", true,
                     std::nullopt, "encoded");
  }
  return response;
}

HttpResponse HttpClient::send_once(const HttpRequest& request, const std::stop_token& stop) {
  // Not given back when anything throws: a handle in doubt is closed with its connection.
  auto handle = take();
  HttpResponse response;
  {
    Transfer transfer(request, *handle);
    set_options(transfer);
    run(transfer, stop);
    const bool large = request.body != nullptr && request.body->size() >= kExpectFrom;
    if (large && transfer.answer.response().ok() && !transfer.answer.saw_continue()) expect_continue_ = false;
    if (transfer.answer.no_leave()) expect_continue_ = false;
    response = std::move(transfer.answer.response());
  }
  // Only now: the end of the transfer still touches the handle, which is the next thread's from here on.
  give(std::move(handle));
  return response;
}

namespace {

// Adds an easy handle to its multi for the time of one request.
class Attached {
 public:
  Attached(CURLM* multi, CURL* easy) : multi_(multi), easy_(easy) {
    if (curl_multi_add_handle(multi_, easy_) != CURLM_OK) throw Error(Code::internal, "libcurl: cannot add a request");
  }
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;
  ~Attached() { curl_multi_remove_handle(multi_, easy_); }

 private:
  CURLM* multi_;
  CURL* easy_;
};

std::optional<CURLcode> result_of(CURLM* multi) {
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
    if (message->msg == CURLMSG_DONE) return message->data.result;
  }
  return std::nullopt;
}

}  // namespace

void HttpClient::run(Transfer& transfer, const std::stop_token& stop) const {
  CURL* easy = transfer.handle.easy;
  CURLM* multi = transfer.handle.multi;
  const auto cancelled = [&] { return transfer.error(Code::cancelled, "cancelled on request", "cancelled", false); };
  if (stop.stop_requested()) throw cancelled();
  const Attached attached(multi, easy);
  const std::stop_callback wake(stop, [multi] { curl_multi_wakeup(multi); });
  const std::uint64_t least = transfer.request.trickles ? 1 : kLeastProgress;
  const int nap = static_cast<int>(std::clamp<Millis::rep>(timeouts_.stall.count() / 4, 5, 1000));
  auto marked_at = std::chrono::steady_clock::now();
  std::uint64_t mark = 0;
  std::optional<CURLcode> result;
  while (true) {
    int running = 0;
    if (const CURLMcode code = curl_multi_perform(multi, &running); code != CURLM_OK) {
      throw Error(Code::internal, "libcurl: " + std::string(curl_multi_strerror(code)));
    }
    if ((result = result_of(multi))) break;
    if (stop.stop_requested()) throw cancelled();
    const auto now = std::chrono::steady_clock::now();
    curl_off_t connecting = 0;
    curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &connecting);
    if (const auto moved = transfer.moved(); moved >= mark + least || moved < mark || connecting == 0) {
      mark = moved;
      marked_at = now;
    } else if (now - marked_at > timeouts_.stall) {
      const std::string stalled = "stalled " + millis_text(timeouts_.stall);
      throw transfer.error(Code::unavailable, stalled, stalled);
    }
    curl_multi_poll(multi, nullptr, 0, nap, nullptr);
  }

  if (!transfer.answer.garbage().empty())
    throw transfer.error(Code::unavailable, "answered with " + transfer.answer.garbage(), "garbage");
  if (transfer.answer.too_large() || *result == CURLE_FILESIZE_EXCEEDED) {
    throw transfer.error(
        Code::resource_exhausted,
        "answered with more than the " + std::to_string(transfer.request.max_answer) + " bytes expected",
        StoreError::kTooLarge, false);
  }
  // A server that refuses a body often closes before it has read all of it: its answer counts, not how the
  // connection ended.
  const bool refused = transfer.answer.complete_headers() && transfer.answer.response().status >= 400;
  if (*result == CURLE_OK || transfer.answer.enough() || refused) {
    if (transfer.answer.complete_headers()) return;
    throw transfer.error(Code::unavailable, "the answer ended within its headers", "short answer");
  }
  long err = 0;
  curl_off_t connected = 0;
  curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &err);
  curl_easy_getinfo(easy, CURLINFO_CONNECT_TIME_T, &connected);
  const std::string detail = printable(transfer.detail[0] != 0 ? transfer.detail : curl_easy_strerror(*result), 200);
  const CurlFailure failure =
      describe_failure(*result, static_cast<int>(err), connected > 0, detail, timeouts_.connect);
  throw transfer.error(failure.code, failure.why, failure.brief, failure.retryable, failure.hint);
}

}  // namespace guestagent

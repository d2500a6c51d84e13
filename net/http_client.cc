#include "net/http_client.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/host_name.h"
#include "base/text.h"
#include "net/curl_failure.h"
#include "net/unix_listener.h"
#include "net/url.h"

namespace guestagent {
namespace {

// Below this a wasted upload costs less than waiting for leave to send it.
constexpr std::uint64_t kExpectFrom = 1 << 20;
// Fewer than these bytes within the stall time are a stall: a peer that trickles must not hold a transfer for
// years.
constexpr std::uint64_t kLeastProgress = 1024;
constexpr std::size_t kLongestSocket = 107;  // what fits into a sockaddr_un
constexpr int kLongestNap = 1000;            // milliseconds

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

// "http://host:port" of a URL; nullopt where it is none.
std::optional<Url> origin_of(std::string_view url) {
  const auto scheme = url.find("://");
  if (scheme == std::string_view::npos) return std::nullopt;
  return parse_url(url.substr(0, url.find_first_of("/?#", scheme + 3)));
}

std::string server_name(const HttpRequest& request) {
  if (!request.socket.empty()) return "unix:" + request.socket.string();
  const auto url = origin_of(request.url);
  return url ? url->origin() : "the server";
}

}  // namespace

// One curl handle with its kept connections to one server, used by one request at a time.
struct HttpClient::Handle {
  CURL* easy = curl_easy_init();
  CURLM* multi = curl_multi_init();
  HeaderList addresses;  // of the server's name, as CURLOPT_RESOLVE has them
  bool host_is_known = false;
  int socket = -1;  // the last one that was opened; curl's
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

struct HttpClient::Kept {
  std::unique_ptr<Handle> handle;
  SteadyTime since;
};

// The state of one request while curl calls back.
struct HttpClient::Transfer {
  Transfer(const HttpRequest& r, Handle& h, const HttpClientOptions& o)
      : request(r), handle(h), options(o), answer(r.max_answer) {
    if (r.timeout > Millis(0)) until = std::chrono::steady_clock::now() + r.timeout;
    if (request.body != nullptr) chunks = request.body->chunks();
  }
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;
  // The handle lives on, and must not write here when it closes its connections.
  ~Transfer() { curl_easy_reset(handle.easy); }

  const HttpRequest& request;
  Handle& handle;
  const HttpClientOptions& options;
  AnswerReader answer;
  SteadyTime until = SteadyTime::max();
  HeaderList headers;
  std::vector<Bytes> chunks;
  std::size_t chunk = 0, offset = 0;  // what is sent next
  unsigned sent = 0;
  std::optional<uid_t> stranger;  // who serves the socket, where that may not be
  std::exception_ptr thrown;      // by on_body
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

  bool take_body(Bytes data) {
    if (!request.on_body || !answer.response().ok()) return answer.body_bytes(data);
    try {
      return answer.passed_on(data, request.on_body(data));
    } catch (...) {
      thrown = std::current_exception();
      return false;
    }
  }

  // Whether the request may be sent on this connection.
  bool may_send() {
    // After a 417 nothing has been done: curl sends it again, without the question.
    const bool again = ++sent > 1 && !answer.no_leave();
    if (again && request.once) return false;
    if (request.socket.empty() || !options.socket_users) return true;
    const uid_t user = peer_user(handle.socket);
    if (std::ranges::find(*options.socket_users, user) != options.socket_users->end()) return true;
    stranger = user;
    return false;
  }

  HttpError error(Code code, const std::string& why, std::string brief, bool retryable = true,
                  std::string hint = {}) const {
    const std::string server = server_name(request);
    if (hint.empty() && code == Code::unavailable)
      hint = "check that " + server + " is up and can be reached from this host";
    return HttpError(code, request.what + ": " + server + ": " + why, std::move(hint), retryable, std::move(brief));
  }
  HttpError cancelled() const { return error(Code::cancelled, "cancelled on request", "cancelled", false); }
  HttpError late() const { return error(Code::deadline_exceeded, "no answer in time", "timeout"); }
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

curl_socket_t open_socket(void* socket, curlsocktype, curl_sockaddr* address) {
  return *static_cast<int*>(socket) = ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
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

HttpClient::HttpClient(HttpClientOptions options) : options_(std::move(options)), names_(options_.resolver) {
  start_curl();
}

HttpClient::~HttpClient() = default;

std::unique_ptr<HttpClient::Handle> HttpClient::take(const std::string& server) {
  std::vector<Kept> old;  // closed without the lock
  const std::lock_guard lock(mutex_);
  const SteadyTime least = std::chrono::steady_clock::now() - options_.kept_for;
  const auto found = idle_.find(server);
  if (found == idle_.end()) return std::make_unique<Handle>();
  Kept last = std::move(found->second.back());
  found->second.pop_back();
  if (last.since < least) {
    old.swap(found->second);  // those before it were left earlier
    old.push_back(std::move(last));
  }
  if (found->second.empty()) idle_.erase(found);
  return last.handle ? std::move(last.handle) : std::make_unique<Handle>();
}

void HttpClient::give(const std::string& server, std::unique_ptr<Handle> handle) {
  std::vector<Kept> old;
  const std::lock_guard lock(mutex_);
  const SteadyTime now = std::chrono::steady_clock::now();
  const auto kept = static_cast<std::ptrdiff_t>(options_.kept);
  idle_[server].push_back({std::move(handle), now});
  // Of servers that are asked no more nothing is kept either.
  for (auto each = idle_.begin(); each != idle_.end();) {
    auto& of_server = each->second;
    const auto fresh =
        std::ranges::find_if(of_server, [&](const Kept& k) { return k.since >= now - options_.kept_for; });
    const auto unwanted = std::max<std::ptrdiff_t>(fresh - of_server.begin(), std::ssize(of_server) - kept);
    const auto end = of_server.begin() + unwanted;
    std::move(of_server.begin(), end, std::back_inserter(old));
    of_server.erase(of_server.begin(), end);
    each = of_server.empty() ? idle_.erase(each) : std::next(each);
  }
}

void HttpClient::find_host(Transfer& transfer, const std::stop_token& stop) {
  if (transfer.handle.host_is_known || !transfer.request.socket.empty()) return;
  const auto url = origin_of(transfer.request.url);
  if (!url) return;  // curl says what is wrong with it
  const auto name = HostName::parse(url->host);
  const bool is_number = url->host.front() == '[' || (name && name->is_address());
  if (!is_number) {
    const SteadyTime connected = std::chrono::steady_clock::now() + options_.connect_timeout;
    std::string entry = url->host + ":" + std::to_string(url->port) + ":";
    try {
      for (const std::string& number : names_.find(url->host, std::min(connected, transfer.until), stop))
        entry += (entry.back() == ':' ? "" : ",") + number;
    } catch (const Error& e) {
      if (e.code() == Code::cancelled) throw transfer.cancelled();
      if (e.code() == Code::deadline_exceeded && transfer.until <= connected)
        throw transfer.error(e.code(), e.what(), "timeout");
      throw transfer.error(Code::unavailable, e.what(), "no such host");
    }
    transfer.handle.addresses.add(entry);
  }
  transfer.handle.host_is_known = true;
}

void HttpClient::set_tls(Transfer& transfer) const {
  CURL* easy = transfer.handle.easy;
  set(easy, CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
  if (!options_.ca_file.empty()) set(easy, CURLOPT_CAINFO, options_.ca_file.c_str());
  if (!options_.certificate.empty()) {
    set(easy, CURLOPT_SSLCERT, options_.certificate.c_str());
    set(easy, CURLOPT_SSLKEY, options_.key.c_str());
  }
  if (options_.insecure) {
    set(easy, CURLOPT_SSL_VERIFYPEER, 0L);
    set(easy, CURLOPT_SSL_VERIFYHOST, 0L);
  }
}

void HttpClient::set_options(Transfer& transfer) const {
  CURL* easy = transfer.handle.easy;
  const HttpRequest& request = transfer.request;
  curl_easy_reset(easy);
  set(easy, CURLOPT_URL, request.url.c_str());
  set(easy, CURLOPT_PATH_AS_IS, 1L);
  if (!request.socket.empty()) set(easy, CURLOPT_UNIX_SOCKET_PATH, request.socket.c_str());
  if (transfer.handle.addresses.list != nullptr) set(easy, CURLOPT_RESOLVE, transfer.handle.addresses.list);
  set(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
  set(easy, CURLOPT_OPENSOCKETDATA, &transfer.handle.socket);
  set(easy, CURLOPT_ERRORBUFFER, transfer.detail);
  set(easy, CURLOPT_NOSIGNAL, 1L);
  set(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  set(easy, CURLOPT_FOLLOWLOCATION, 0L);
  set(easy, CURLOPT_PROXY, "");
  set(easy, CURLOPT_NETRC, long{CURL_NETRC_IGNORED});
  set(easy, CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  set(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(std::max<Millis::rep>(options_.connect_timeout.count(), 1)));
  set(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  set(easy, CURLOPT_BUFFERSIZE, options_.transfer_buffer);
  set(easy, CURLOPT_UPLOAD_BUFFERSIZE, options_.transfer_buffer);
  set(easy, CURLOPT_SOCKOPTFUNCTION, limit_unsent);
  set(easy, CURLOPT_MAXAGE_CONN, static_cast<long>(options_.kept_for.count()));
  set_tls(transfer);

  using Read = std::size_t (*)(char*, std::size_t, std::size_t, void*);
  const Read read = [](char* to, std::size_t size, std::size_t n, void* t) {
    return static_cast<Transfer*>(t)->read(to, size * n);
  };
  const Read header = [](char* from, std::size_t size, std::size_t n, void* t) {
    const auto take_line = [&] { return static_cast<Transfer*>(t)->answer.header_line({from, size * n}); };
    return guarded(take_line, false) ? size * n : 0;
  };
  const Read write = [](char* from, std::size_t size, std::size_t n, void* t) {
    const auto take_bytes = [&] { return static_cast<Transfer*>(t)->take_body(as_bytes({from, size * n})); };
    return guarded(take_bytes, false) ? size * n : 0;
  };
  using Prepare = int (*)(void*, char*, char*, int, int);
  const Prepare prepare = [](void* t, char*, char*, int, int) {
    const auto ask = [&] { return static_cast<Transfer*>(t)->may_send(); };
    return guarded(ask, false) ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
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
  bool typed = false;
  for (const auto& [name, value] : request.headers) {
    typed |= name == "Content-Type";
    if (value.find_first_of("\r\n") != std::string::npos)
      throw Error(Code::internal, "header " + name + ": has a line break");
    transfer.headers.add(value.empty() ? name + ";" : name + ": " + value);
  }
  if (request.method == "POST" && !typed) transfer.headers.add("Content-Type:");  // curl would say that it is a form
  // What is compressed on the way has neither the length nor the digest of what is stored.
  transfer.headers.add("Accept-Encoding: identity");
  // Where it may, curl asks for leave to send the body, and sends it without asking when the question is refused (417).
  if (size < kExpectFrom || !expect_continue_) transfer.headers.add("Expect:");
  set(easy, CURLOPT_EXPECT_100_TIMEOUT_MS, 1000L);
  set(easy, CURLOPT_HTTPHEADER, transfer.headers.list);
}

HttpResponse HttpClient::send(const HttpRequest& request, std::stop_token stop) {
  if (request.socket.native().size() > kLongestSocket) {
    throw HttpError(Code::invalid_argument, request.what + ": " + server_name(request) + ": the path is too long", {},
                    false, "path");
  }
  const bool may_ask = request.body != nullptr && request.body->size() >= kExpectFrom && expect_continue_;
  HttpResponse response = send_once(request, stop);
  if (response.status == 417 && may_ask) {
    expect_continue_ = false;
    response = send_once(request, stop);
  }
  const std::string_view coding = response.header("content-encoding").value_or("");
  if (response.ok() && !response.body.empty() && !coding.empty() && coding != "identity" && coding != "aws-chunked") {
    throw HttpError(
        Code::failed_precondition,
        request.what + ": " + server_name(request) + ": answered with Content-Encoding: " + printable(coding, 40) +
            ", although only what is stored was asked for",
        "a proxy on the way changes what the store sends: let it pass answers as they are", true, "encoded");
  }
  return response;
}

HttpResponse HttpClient::send_once(const HttpRequest& request, const std::stop_token& stop) {
  // Not given back when anything throws: a handle in doubt is closed with its connection.
  const std::string server = server_name(request);
  auto handle = take(server);
  HttpResponse response;
  {
    Transfer transfer(request, *handle, options_);
    find_host(transfer, stop);
    set_options(transfer);
    run(transfer, stop);
    const bool large = request.body != nullptr && request.body->size() >= kExpectFrom;
    if (large && transfer.answer.response().ok() && !transfer.answer.saw_continue()) expect_continue_ = false;
    if (transfer.answer.no_leave()) expect_continue_ = false;
    response = std::move(transfer.answer.response());
  }
  // Only now: the end of the transfer still touches the handle, which is the next thread's from here on.
  give(server, std::move(handle));
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
  if (stop.stop_requested()) throw transfer.cancelled();
  const Attached attached(multi, easy);
  const std::stop_callback wake(stop, [multi] { curl_multi_wakeup(multi); });
  const std::uint64_t least = transfer.request.trickles ? 1 : kLeastProgress;
  const bool can_stall = options_.stall > Millis(0);
  const int longest =
      can_stall ? static_cast<int>(std::clamp<Millis::rep>(options_.stall.count() / 4, 5, kLongestNap)) : kLongestNap;
  auto marked_at = std::chrono::steady_clock::now();
  std::uint64_t mark = 0;
  std::optional<CURLcode> result;
  while (true) {
    int running = 0;
    if (const CURLMcode code = curl_multi_perform(multi, &running); code != CURLM_OK) {
      throw Error(Code::internal, "libcurl: " + std::string(curl_multi_strerror(code)));
    }
    if ((result = result_of(multi))) break;
    if (stop.stop_requested()) throw transfer.cancelled();
    const auto now = std::chrono::steady_clock::now();
    curl_off_t connecting = 0;
    curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &connecting);
    if (const auto moved = transfer.moved(); moved >= mark + least || moved < mark || connecting == 0) {
      mark = moved;
      marked_at = now;
    } else if (can_stall && now - marked_at > options_.stall) {
      const std::string stalled = "stalled " + millis_text(options_.stall);
      throw transfer.error(Code::unavailable, stalled, stalled);
    }
    int nap = longest;
    if (transfer.until != SteadyTime::max()) {
      if (now >= transfer.until) throw transfer.late();
      nap = static_cast<int>(std::min<Millis::rep>(nap, std::chrono::ceil<Millis>(transfer.until - now).count()));
    }
    curl_multi_poll(multi, nullptr, 0, nap, nullptr);
  }
  if (transfer.thrown) std::rethrow_exception(transfer.thrown);
  if (transfer.stranger) {
    throw transfer.error(
        Code::permission_denied,
        "a process of user " + std::to_string(*transfer.stranger) + " serves it, whom guestagent does not trust",
        "stranger", false, options_.hints.socket_user);
  }

  if (!transfer.answer.garbage().empty())
    throw transfer.error(Code::unavailable, "answered with " + transfer.answer.garbage(), "garbage");
  if (transfer.answer.too_large() || *result == CURLE_FILESIZE_EXCEEDED) {
    throw transfer.error(
        Code::resource_exhausted,
        "answered with more than the " + std::to_string(transfer.request.max_answer) + " bytes expected",
        HttpError::kTooLarge, false);
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
  if (!transfer.request.socket.empty() && (err == EACCES || err == EPERM))
    throw transfer.error(Code::permission_denied, std::strerror(static_cast<int>(err)), "no access", false);
  const CurlFailure failure =
      describe_failure(*result, static_cast<int>(err), connected > 0, detail, options_.connect_timeout, options_.hints);
  throw transfer.error(failure.code, failure.why, failure.brief, failure.retryable, failure.hint);
}

}  // namespace guestagent

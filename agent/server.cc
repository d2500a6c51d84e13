#include "agent/server.h"

#include <condition_variable>
#include <mutex>

#include "base/json.h"
#include "base/log.h"
#include "net/http_server.h"
#include "net/metrics_text.h"

namespace guestagent {
namespace {

constexpr std::size_t kMaxHeadBytes = 16384;
constexpr Seconds kHeartbeat{15};  // of an event stream in which nothing happens
constexpr Millis kEventWait{1000};
constexpr unsigned kMaxRefusing = 16;  // connections by TCP that are being told why not
constexpr std::string_view kRoutes = "the routes are POST /rpc, GET /healthz, GET /metrics and GET /jobs/{id}/events";
constexpr std::string_view kBeforeJob = "/jobs/", kAfterJob = "/events";

HttpReply make_reply(int status, std::string_view type, std::string body) {
  return {status,
          std::string(type),
          std::move(body),
          {{"Server", "guestagent/" GUESTAGENT_VERSION}, {"Cache-Control", "no-store"}}};
}

HttpReply refuse(int status, Code code, const std::string& message, std::string_view hint = {}) {
  return make_reply(status, "application/json",
                    "{\"error\":" + write_rpc_error(Error(code, message, std::string(hint))) + "}\n");
}

HttpReply wrong_method(const std::string& allowed) {
  HttpReply reply = refuse(405, Code::invalid_argument, "only " + allowed + " is answered here", kRoutes);
  reply.headers.emplace_back("Allow", allowed);
  return reply;
}

HttpReply refuse_fault(HttpFault fault, const std::string& why) {
  switch (fault) {
    case HttpFault::timed_out:
      return refuse(408, Code::deadline_exceeded, "the request did not come in time");
    case HttpFault::body_too_large:
      return refuse(413, Code::resource_exhausted, "the request's body is too large");
    case HttpFault::head_too_large:
      return refuse(431, Code::resource_exhausted, "the request's head is too large");
    case HttpFault::too_many:
      log_warning("a connection was turned away: too many at a time");
      return refuse(503, Code::resource_exhausted, "too many connections at a time", "try again");
    case HttpFault::not_allowed:
      return refuse(403, Code::permission_denied, "this user may not talk to the agent",
                    "add it to agent.allow_users or agent.allow_groups");
    case HttpFault::bad_http:
      break;
  }
  return refuse(400, Code::invalid_argument, "this is no HTTP request: " + why, kRoutes);
}

HttpServerSettings server_settings(const AgentSettings& settings, const ServerLimits& limits) {
  HttpServerSettings out;
  out.local = {"agent", settings.socket, settings.socket_mode, settings.allow_users, settings.allow_groups};
  out.listen_key = "agent.listen.address";
  out.listen = settings.listen.address;
  if (!out.listen.empty()) {
    const TlsListenSettings& tls = settings.listen;
    out.tls = {"agent.listen", tls.certificate, tls.key, tls.client_ca, tls.client_crl, tls.allow_names};
  }
  out.limits.head_bytes = kMaxHeadBytes;
  out.limits.body_bytes = limits.request_bytes;
  // Each may wait for a job.
  out.limits.workers = 2 * limits.connections + limits.reserved;
  out.limits.local = out.limits.remote = limits.connections;
  out.limits.remote_in_all = limits.connections + limits.strangers + kMaxRefusing;
  out.limits.reserved = limits.reserved;
  out.limits.strangers = limits.strangers;
  out.limits.strangers_of_one = limits.strangers_of_one;
  out.limits.handshake = limits.handshake_timeout;
  out.limits.first_request = out.limits.request = out.limits.farewell = limits.request_timeout;
  return out;
}

std::string event_of(const JobRecord& record) {
  JsonWriter out;
  out.begin_object()
      .member("state", to_string(record.state))
      .member("phase", record.phase)
      .member("bytes", record.progress.done_bytes);
  out.member_or_null("total", record.progress.total_bytes);
  out.member("rate", record.progress.rate).member_or_null("eta", record.progress.eta_s).end_object();
  return "event: progress\ndata: " + out.text() + "\n\n";
}

// What one listener at a job's events has seen.
class JobEvents {
 public:
  // Throws Error where there is no such job.
  JobEvents(Jobs& jobs, std::string job_id, std::function<bool()> peer_gone)
      : jobs_(jobs),
        job_id_(std::move(job_id)),
        peer_gone_(std::move(peer_gone)),
        record_(jobs_.wait_change(job_id_, seen_, Millis(0))) {}

  std::optional<std::string> next() {
    if (told_ && (record_.ended() || peer_gone_())) return std::nullopt;
    const std::uint64_t before = seen_;
    if (told_) record_ = jobs_.wait_change(job_id_, seen_, kEventWait);
    std::string out = !told_ || seen_ != before ? event_of(record_) : "";
    told_ = true;
    if (record_.ended()) out += "event: end\ndata: " + write_job(record_, false) + "\n\n";
    if (out.empty() && std::chrono::steady_clock::now() - spoke_ > kHeartbeat) out = ":\n\n";
    if (!out.empty()) spoke_ = std::chrono::steady_clock::now();
    return out;
  }

 private:
  Jobs& jobs_;
  const std::string job_id_;
  const std::function<bool()> peer_gone_;
  std::uint64_t seen_ = 0;
  JobRecord record_;
  bool told_ = false;
  SteadyTime spoke_;
};

HttpReply job_events(Jobs& jobs, const ReceivedRequest& request, std::string job_id) {
  try {
    const auto events = std::make_shared<JobEvents>(jobs, std::move(job_id), request.peer_gone);
    HttpReply reply;
    reply.headers.emplace_back("Server", "guestagent/" GUESTAGENT_VERSION);
    reply.next = [events]() -> std::optional<std::string> {
      try {
        return events->next();
      } catch (const std::exception& e) {
        log_error("a connection failed", {{"error", e.what()}});
        return std::nullopt;
      }
    };
    return reply;
  } catch (const Error& e) {
    const bool known = e.code() != Code::not_found && e.code() != Code::invalid_argument;
    return refuse(known ? 500 : 404, e.code(), e.what(), e.hint());
  }
}

}  // namespace

struct Server::State {
  State(const AgentSettings& settings, Dispatcher& d, Jobs& j, Text m, const ServerLimits& limits)
      : dispatcher(d),
        jobs(j),
        metrics(std::move(m)),
        http(
            server_settings(settings, limits), [this](const ReceivedRequest& request) { return answer(request); },
            refuse_fault) {}

  HttpReply answer(const ReceivedRequest& request);
  HttpReply route(const ReceivedRequest& request);

  Dispatcher& dispatcher;
  Jobs& jobs;
  const Text metrics;
  HttpServer http;
};

HttpReply Server::State::answer(const ReceivedRequest& request) {
  // Nobody else comes as far as this.
  if (!request.caller.proven()) return refuse(403, Code::permission_denied, "nobody knows who asks");
  if (request.origin) return refuse(403, Code::permission_denied, "requests of web pages are not answered");
  try {
    return route(request);
  } catch (const std::exception& e) {
    log_error("a request failed", {{"error", e.what()}});
    return refuse(500, Code::internal, e.what());
  }
}

HttpReply Server::State::route(const ReceivedRequest& request) {
  const std::string& path = request.path;
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (path == "/rpc") {
    if (request.method != "POST") return wrong_method("POST");
    std::string text = dispatcher.handle(request.body, request.peer_gone);
    if (text.empty()) return make_reply(204, "", "");
    return make_reply(200, "application/json", std::move(text));
  }
  if (path == "/healthz") {
    if (!reads) return wrong_method("GET, HEAD");
    return make_reply(200, "application/json", "{\"status\":\"ok\",\"version\":\"" GUESTAGENT_VERSION "\"}\n");
  }
  if (path == "/metrics") return reads ? make_reply(200, kMetricsType, metrics()) : wrong_method("GET, HEAD");
  if (path.starts_with(kBeforeJob) && path.ends_with(kAfterJob)) {
    if (request.method != "GET") return wrong_method("GET");
    if (path.size() > kBeforeJob.size() + kAfterJob.size()) {
      return job_events(jobs, request,
                        path.substr(kBeforeJob.size(), path.size() - kBeforeJob.size() - kAfterJob.size()));
    }
    return wrong_method("GET");
  }
  return refuse(404, Code::not_found, "there is nothing at this path", kRoutes);
}

Server::Server(const AgentSettings& settings, Dispatcher& dispatcher, Jobs& jobs, Text metrics, ServerLimits limits)
    : state_(std::make_unique<State>(settings, dispatcher, jobs, std::move(metrics), limits)) {}

Server::~Server() = default;

void Server::reload_tls() {
  state_->http.reload_tls();
}

void Server::run(std::stop_token stopped) {
  state_->http.start();
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait(lock, stopped, [] { return false; });
  state_->http.stop();
}

}  // namespace guestagent

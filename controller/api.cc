#include "controller/api.h"

#include <algorithm>

#include "base/host_name.h"
#include "base/log.h"
#include "base/text.h"
#include "controller/api_requests.h"
#include "controller/page.h"
#include "controller/request_mark.h"
#include "net/metrics_text.h"

namespace guestagent::controller {
namespace {

constexpr int kTasksShown = 100;
constexpr int kEventsShown = 200;
constexpr int kEventsReplayed = 1000;
constexpr std::uint16_t kHttpPort = 80, kHttpsPort = 443;

struct Fault {
  int status;
  const char* name;  // as OpenStack's services call it
};

Fault fault_of(Code code) {
  switch (code) {
    case Code::invalid_argument:
      return {400, "badRequest"};
    case Code::permission_denied:
      return {403, "forbidden"};
    case Code::not_found:
      return {404, "itemNotFound"};
    case Code::already_exists:
    case Code::failed_precondition:
    case Code::busy:
      return {409, "conflict"};
    case Code::unimplemented:
      return {501, "notImplemented"};
    case Code::unavailable:
    case Code::deadline_exceeded:
    case Code::cancelled:
    case Code::resource_exhausted:
      return {503, "serviceUnavailable"};
    case Code::data_loss:
    case Code::internal:
      break;
  }
  return {500, "instanceFault"};
}

HttpReply fault(const Fault& kind, const std::string& message, const std::string& hint = {}) {
  JsonWriter out;
  out.begin_object().key(kind.name).begin_object().member("code", kind.status).member("message", message);
  if (!hint.empty()) out.member("hint", hint);
  return {kind.status, "application/json", out.end_object().end_object().text() + "\n"};
}

HttpReply answer(int status, const std::string& json) {
  return {status, "application/json", json + "\n"};
}

HttpReply wrong_method(const std::string& allowed) {
  HttpReply reply = fault({405, "badMethod"}, "this resource allows " + allowed);
  reply.headers.emplace_back("Allow", allowed);
  return reply;
}

JsonDocument parse_body(const ReceivedRequest& request) {
  return parse_json(request.body, "body");
}

HttpReply accepted(const Task& task, const std::vector<Replica>& replicas) {
  JsonWriter out;
  out.begin_object().key("instances").begin_array();
  for (const Replica& replica : replicas) {
    out.begin_object().member("id", replica.instance_id).member("name", replica.instance_name).end_object();
  }
  out.end_array().key("task").begin_object().member("id", task.id).end_object().end_object();
  HttpReply reply = answer(202, out.text());
  reply.headers.emplace_back("Location", "/tasks/" + task.id);
  return reply;
}

std::vector<std::string> parts_of(const std::string& path) {
  std::vector<std::string> out;
  std::size_t begin = 1;
  while (begin <= path.size()) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    if (end > begin) out.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

// Who asked for what, and what came of it: the task or the instance that it was about.
void audit(const ReceivedRequest& request, const HttpReply& reply) {
  std::string about;
  for (const auto& [name, value] : reply.headers) {
    if (name == "Location") about = value;
  }
  const bool is_task = about.starts_with("/tasks/");
  log_info("a changing request", {{"caller", request.caller.name},
                                  {"method", printable(request.method)},
                                  {"path", printable(request.path)},
                                  {"status", std::to_string(reply.status)},
                                  {is_task ? "task" : "about", is_task         ? about.substr(7)
                                                               : about.empty() ? printable(request.path)
                                                                               : about}});
}

}  // namespace

HttpReply error_reply(const Error& error) {
  return fault(fault_of(error.code()), error.what(), error.hint());
}

Api::Api(State& state, TaskManager& tasks, Agents& agents, Live& live, EventHub& hub, const ApiAccess& access,
         std::function<std::string()> metrics)
    : state_(state),
      tasks_(tasks),
      agents_(agents),
      live_(live),
      hub_(hub),
      views_(state, live),
      access_(access),
      metrics_(std::move(metrics)) {}

HttpReply Api::handle(const ReceivedRequest& request) {
  HttpReply reply;
  bool known = false;
  try {
    reply = route(request, known);
  } catch (const std::exception& e) {
    const Error error = to_error(e);
    if (error.code() == Code::internal)
      log_error("a request failed", {{"path", printable(request.path)}, {"error", error.what()}});
    reply = error_reply(error);
  }
  if (known && request.method != "GET" && request.method != "HEAD") audit(request, reply);
  reply.headers.emplace_back("X-Content-Type-Options", "nosniff");
  if (reply.content_type == "application/json") reply.headers.emplace_back("Cache-Control", "no-store");
  return reply;
}

std::optional<HttpReply> Api::refuse_strange_page(const ReceivedRequest& request) const {
  if (!request.local()) {
    // A page from elsewhere in a browser of this host must not reach a listener that is for this host only, by whatever
    // name.
    const auto host = HostPort::parse(request.host);
    const std::uint16_t port = host && host->port ? *host->port : request.tls ? kHttpsPort : kHttpPort;
    if (!host || (access_.loopback_listener && !(host->host.is_loopback() && port == request.port))) {
      return fault({403, "forbidden"}, "the Host header must name this host",
                   access_.loopback_listener
                       ? "localhost or an address such as 127.0.0.1, and the port of controller.listen"
                       : "");
    }
  }
  const bool reads = request.method == "GET" || request.method == "HEAD";
  const std::string origin = request.origin.value_or("");
  if (reads || origin.empty()) return std::nullopt;
  const std::string own = (request.tls ? "https://" : "http://") + request.host;
  if (origin == own) return std::nullopt;
  return fault({403, "forbidden"}, "requests from pages of other origins are refused");
}

std::optional<HttpReply> Api::refuse_stranger(const ReceivedRequest& request) const {
  if (request.caller.proven()) return std::nullopt;
  HttpReply reply = fault({401, "unauthorized"}, "a bearer token is needed", "Authorization: Bearer TOKEN");
  reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

HttpReply Api::route(const ReceivedRequest& request, bool& known) {
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (!request.not_once.empty())
    return fault({400, "badRequest"}, "there must be exactly one " + request.not_once + " header");
  if (auto refused = refuse_strange_page(request)) return std::move(*refused);
  // The page holds nothing; what it shows it asks for with the token that its user types in.
  if (const auto* file = page_file(request.path)) {
    if (!reads) return wrong_method("GET");
    return {
        200,
        file->content_type,
        std::string(file->content),
        {{"Content-Security-Policy", kPagePolicy}, {"Cache-Control", "no-cache"}, {"Referrer-Policy", "no-referrer"}}};
  }
  if (request.path == "/healthz") return reads ? HttpReply{200, "text/plain", "ok\n"} : wrong_method("GET");
  if (auto refused = refuse_stranger(request)) return std::move(*refused);
  known = true;

  if (!reads) {
    if (auto again = answer_again(mark_of(request))) return std::move(*again);
  }
  const std::vector<std::string> parts = parts_of(request.path);
  const std::string first = parts.empty() ? "" : parts[0];
  if (first == "instances") {
    if (parts.size() == 1) return on_instances(request);
    if (parts.size() == 2) return on_instance(request, parts[1]);
    if (parts.size() == 3 && parts[2] == "topology")
      return reads ? answer(200, views_.topology(parts[1])) : wrong_method("GET");
    if (parts.size() == 3 && parts[2] == "action") {
      return request.method == "POST" ? instance_action(request, parts[1]) : wrong_method("POST");
    }
    if (parts.size() == 4 && parts[2] == "topology" && parts[3] == "action") {
      return request.method == "POST" ? topology_action(request, parts[1]) : wrong_method("POST");
    }
  } else if (first == "tasks") {
    if (parts.size() == 1) return reads ? answer(200, views_.tasks(kTasksShown)) : wrong_method("GET");
    if (parts.size() == 2) return reads ? answer(200, views_.task(parts[1])) : wrong_method("GET");
    if (parts.size() == 3 && parts[2] == "action") {
      return request.method == "POST" ? task_action(request, parts[1]) : wrong_method("POST");
    }
  } else if (request.path == "/events") {
    return reads ? events(request) : wrong_method("GET");
  } else if (request.path == "/metrics") {
    return reads ? HttpReply{200, kMetricsType, metrics_()} : wrong_method("GET");
  }
  return fault({404, "itemNotFound"}, "there is no " + printable(request.path),
               "/instances, /instances/ID, /tasks, /tasks/ID, /events and /metrics are there");
}

std::optional<HttpReply> Api::answer_again(const RequestMark& mark) {
  const auto known = state_.repeated(mark);
  if (!known) return std::nullopt;
  if (!known->task_id.empty()) return accepted(state_.task(known->task_id), state_.replicas(known->task_id));
  if (known->forgot) return HttpReply{204, "application/json", ""};
  return registered(known->instance_id);
}

HttpReply Api::registered(const std::string& id) {
  HttpReply reply = answer(201, views_.instance(id));
  reply.headers.emplace_back("Location", "/instances/" + id);
  return reply;
}

HttpReply Api::on_instances(const ReceivedRequest& request) {
  if (request.method == "POST") return register_host(request);
  if (request.method != "GET" && request.method != "HEAD") return wrong_method("GET, POST");
  return answer(200, views_.instances(request.query_value("lag_history") == "true"));
}

HttpReply Api::on_instance(const ReceivedRequest& request, const std::string& id) {
  if (request.method == "DELETE") {
    const Instance instance = state_.instance(id);
    state_.forget_instance(instance.id, request.query_value("force") == "true", mark_of(request));
    live_.forget_instance(instance.id);
    return {204, "application/json", ""};
  }
  if (request.method != "GET" && request.method != "HEAD") return wrong_method("GET, DELETE");
  return answer(200, views_.instance(id));
}

HttpReply Api::register_host(const ReceivedRequest& request) {
  RegisterBody body = read_register(parse_body(request), access_.agents);
  const std::string text = with_context("registering " + body.instance.address,
                                        [&] { return agents_.call(body.instance.address, "get_info", "{}", {}); });
  const JsonDocument document = parse_json(text, "get_info");
  const JsonReader info(document, "get_info", Code::internal);
  bool& has_data = body.instance.has_data;
  has_data = true;
  if (const auto host = info.opt_object("host")) {
    has_data = host->opt_boolean("has_user_data").value_or(true);
    body.instance.reported_server_id = host->opt_uint("server_id").value_or(0);
    if (const auto address = host->opt_string("advertised_address"); address && body.instance.name.empty())
      body.instance.name = HostName::require("get_info: host.advertised_address", *address).text();
    // A volume's size is known to the host itself where nobody states it.
    if (body.instance.host.volume_size == 0)
      body.instance.host.volume_size = host->opt_uint("volume_bytes").value_or(0) >> 30;
  }
  body.instance.spare = body.pool.value_or(!has_data);
  return registered(state_.add_instance(body.instance, mark_of(request)).id);
}

HttpReply Api::instance_action(const ReceivedRequest& request, const std::string& id) {
  const JsonDocument body = parse_body(request);
  const std::string action =
      action_name(body, {"replicate", "promote_to_replica_source", "eject_replica_source", "rebuild"});
  if (action != "replicate") {
    const JsonReader in(body[action.c_str()], action);
    if (action == "rebuild") {
      in.allow_only({});
    } else {
      in.allow_only({"force"});
    }
    in.opt_boolean("force");
    const std::string host = state_.instance(id).id;
    const RequestMark mark = mark_of(request);
    const Task task = action == "eject_replica_source" ? tasks_.eject(host, to_json(body), mark)
                      : action == "rebuild"            ? tasks_.rebuild(host, to_json(body), mark)
                                                       : tasks_.promote(host, to_json(body), mark);
    return accepted(task, state_.replicas(task.id));
  }
  const ReplicateBody in = read_replicate(body["replicate"]);
  const Instance master = state_.instance(id);
  ReplicaTopology topology = in.topology;
  if (topology.slave_of == master.name) topology.slave_of = master.id;
  const Task task = tasks_.create_replicated_instances(master.id, in.count, in.host.flavor, topology,
                                                       in.host.volume_size, in.host.availability_zone, in.host.nics,
                                                       {in.name, to_json(body), mark_of(request), in.overwrite});
  return accepted(task, state_.replicas(task.id));
}

HttpReply Api::topology_action(const ReceivedRequest& request, const std::string& id) {
  const JsonDocument body = parse_body(request);
  action_name(body, {"detach"});
  const DetachOptions options = read_detach(body["detach"]);
  const Instance host = state_.instance(id);
  try {
    const Task task = tasks_.detach_replication(host.id, options, mark_of(request));
    return accepted(task, state_.replicas(task.id));
  } catch (const Error& e) {
    const auto members = state_.members();
    const bool is_member =
        std::any_of(members.begin(), members.end(), [&](const Member& m) { return m.instance_id == host.id; });
    const auto source = is_member ? std::nullopt : views_.followed_outside(host);
    if (e.code() != Code::invalid_argument || !source) throw;
    throw Error(e.code(),
                std::string(e.what()) + " of this controller: it follows " + source->name + ", by other hands",
                "detach it on its own host: guestagent --oneshot detach_replication_slave");
  }
}

HttpReply Api::task_action(const ReceivedRequest& request, const std::string& id) {
  const JsonDocument body = parse_body(request);
  const std::string action = action_name(body, {"retry", "cancel"});
  const JsonReader in(body[action.c_str()], action);
  if (action == "retry") {
    in.allow_only({"replace", "overwrite"});
    const Task task = tasks_.retry(id, in.opt_boolean("replace").value_or(false),
                                   in.opt_boolean("overwrite").value_or(false), mark_of(request));
    return accepted(task, state_.replicas(task.id));
  }
  in.allow_only({});
  tasks_.cancel(id, mark_of(request));
  return accepted(state_.task(id), state_.replicas(id));
}

HttpReply Api::events(const ReceivedRequest& request) {
  if (request.accept.find("text/event-stream") == std::string::npos &&
      request.accept.find("application/json") != std::string::npos) {
    return answer(200, views_.events(kEventsShown));
  }
  std::string first = "retry: 2000\n\n";
  if (!request.last_event_id.empty()) {
    if (request.last_event_id.size() > 18 ||
        request.last_event_id.find_first_not_of("0123456789") != std::string::npos) {
      throw Error(Code::invalid_argument, "reading Last-Event-ID: it must be the id of an event");
    }
    for (const Event& event : state_.events_after(std::stoll(request.last_event_id), kEventsReplayed))
      first += EventHub::frame(event);
  }
  HttpReply reply;
  reply.stream = hub_.listen(std::move(first));
  return reply;
}

}  // namespace guestagent::controller

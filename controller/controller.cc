#include "controller/controller.h"

#include <systemd/sd-daemon.h>

#include <csignal>

#include "base/log.h"
#include "controller/api.h"
#include "controller/metrics.h"
#include "controller/monitor.h"

namespace guestagent::controller {
namespace {

std::size_t samples(const MonitorSettings& monitor) {
  return static_cast<std::size_t>(std::max<Millis::rep>(monitor.history / monitor.interval, 2));
}

ApiAccess access_of(const ControllerSettings& settings) {
  return {!settings.listen.empty() && parse_listen_address(settings.listen).loopback(), settings.agents};
}

HttpServerSettings server_settings(const ControllerSettings& settings) {
  HttpServerSettings out;
  out.local = {"controller", settings.socket, settings.socket_mode, settings.allow_users, settings.allow_groups};
  out.listen_key = "controller.listen";
  out.listen = settings.listen;
  out.listen_error = [](std::string_view doing, int why) {
    return Error(Code::unavailable, std::string(doing) + ": " + std::generic_category().message(why),
                 "set controller.listen to a free address of this host");
  };
  const ControllerTlsSettings& tls = settings.tls;
  out.tls = {"controller.tls", tls.certificate, tls.key, tls.client_ca, tls.client_crl, tls.allow_names};
  out.tls.certificate_needed = settings.token_file.empty();
  out.tls.strangers_speak = true;  // they may have the token, and the page is for everybody
  if (settings.token_file.empty()) return out;
  out.token = secret_from_file(settings.token_file.string());
  if (out.token.empty()) {
    throw Error(Code::invalid_argument, "reading the token: " + settings.token_file.string() + ": it is empty");
  }
  return out;
}

std::optional<HttpReply> refuse(HttpFault fault, const std::string&) {
  const auto reply = [](int status, const std::string& json) { return HttpReply{status, "application/json", json}; };
  switch (fault) {
    case HttpFault::not_allowed:
      return reply(403, R"({"forbidden": {"code": 403, "message": "this user may not talk to the controller", )"
                        R"("hint": "name it in controller.allow_users, or a group of its in controller.allow_groups"}})"
                        "\n");
    case HttpFault::body_too_large:
      return reply(413, R"({"overLimit": {"code": 413, "message": "the request's body is too large"}})");
    case HttpFault::bad_http:
    case HttpFault::head_too_large:
      return reply(400, R"({"badRequest": {"code": 400, "message": "the request is not good HTTP"}})");
    case HttpFault::timed_out:
    case HttpFault::too_many:
      break;
  }
  return std::nullopt;
}

}  // namespace

struct Controller::Parts {
  explicit Parts(const ControllerSettings& s)
      : settings(s),
        state((make_dir(settings.state.parent_path(), 0700), settings.state), system_clock()),
        agents(settings.agents),
        provisioner(make_provisioner(settings.provisioner, settings.agents)),
        live(samples(settings.monitor), settings.monitor.interval),
        views(state, live),
        hub([this](const std::string& id) { return views.instance_event(id); },
            [this](const std::string& id) { return views.task_event(id); }),
        tasks(state, agents, *provisioner, live, settings, system_clock(),
              [this](const std::string& id, std::stop_token stop) { monitor.look_now(id, stop); }),
        monitor(state, agents, live, settings, system_clock()),
        api(state, tasks, agents, live, hub, access_of(settings), [this] { return controller_metrics(state, live); }),
        server(
            server_settings(settings), [this](const ReceivedRequest& request) { return api.handle(request); }, refuse) {
    state.observe([this](const std::vector<Change>& changes) { hub.changed(changes); });
    live.on_instance = [this](const std::string& id) { hub.instance_changed(id); };
    live.on_task = [this](const std::string& id) { hub.task_changed(id); };
  }

  const ControllerSettings settings;
  State state;
  AgentClient agents;
  std::unique_ptr<Provisioner> provisioner;
  Live live;
  Views views;
  EventHub hub;
  TaskManager tasks;
  Monitor monitor;
  Api api;
  HttpServer server;
};

Controller::Controller(const ControllerSettings& settings) : parts_(std::make_unique<Parts>(settings)) {}
Controller::~Controller() {
  stop();
}
std::uint16_t Controller::port() const {
  return parts_->server.port();
}

void Controller::reload() {
  try {
    parts_->server.reload_tls();
    log_info("TLS files were read again; other settings wait for a restart");
  } catch (const Error& e) {
    log_error("TLS files were not read again; those from before hold", {{"error", e.what()}, {"hint", e.hint()}});
  }
}

void Controller::start() {
  parts_->tasks.resume();
  parts_->monitor.start();
  parts_->server.start();
}

void Controller::stop() {
  parts_->server.stop();
  parts_->hub.shut_down();
  parts_->monitor.shut_down();
  parts_->tasks.shut_down();
}

int run_controller(const ControllerSettings& settings) {
  log_setup(settings.log_level, settings.log_format);
  // Blocked before any thread is made, so that only this one takes them.
  sigset_t ends;
  ::sigemptyset(&ends);
  ::sigaddset(&ends, SIGINT);
  ::sigaddset(&ends, SIGTERM);
  ::sigaddset(&ends, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  Controller controller(settings);
  controller.start();
  const std::string host = settings.listen.substr(0, settings.listen.rfind(':'));
  log_info("controller is ready",
           {{"socket", settings.socket.string()},
            {"listen", settings.listen.empty() ? "off" : host + ":" + std::to_string(controller.port())},
            {"state", settings.state.string()}});
  ::sd_notify(0, "READY=1");
  for (int signal = SIGHUP; signal == SIGHUP;) {
    ::sigwait(&ends, &signal);
    if (signal == SIGHUP) controller.reload();
  }
  ::sd_notify(0, "STOPPING=1");
  log_info("controller is stopping; its tasks go on when it is started again");
  controller.stop();
  return 0;
}

}  // namespace guestagent::controller

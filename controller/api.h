// The routes of the controller's API: HTTP in, HTTP out, without a socket.
#pragma once

#include "controller/event_hub.h"
#include "controller/http_server.h"
#include "controller/task_manager.h"
#include "controller/views.h"

namespace guestagent::controller {

// Who may ask for what.
struct ApiAccess {
  Secret token;               // empty: none is needed
  bool certificates = false;  // known clients need no token
};

// Thread-safe.
class Api {
 public:
  // All outlive it.
  Api(State& state, TaskManager& tasks, Agents& agents, Live& live, EventHub& hub, const ApiAccess& access,
      std::function<std::string()> metrics);

  // Never throws. Errors are {"badRequest": {"code": 400, "message": …, "hint": …}} and the like.
  HttpReply handle(const HttpRequest& request);

 private:
  HttpReply route(const HttpRequest& request);
  std::optional<HttpReply> refuse(const HttpRequest& request) const;
  HttpReply on_instances(const HttpRequest& request);
  HttpReply on_instance(const HttpRequest& request, const std::string& id);
  HttpReply register_host(const HttpRequest& request);
  HttpReply instance_action(const HttpRequest& request, const std::string& id);
  HttpReply topology_action(const HttpRequest& request, const std::string& id);
  HttpReply task_action(const HttpRequest& request, const std::string& id);
  HttpReply events(const HttpRequest& request);

  State& state_;
  TaskManager& tasks_;
  Agents& agents_;
  Live& live_;
  EventHub& hub_;
  Views views_;
  ApiAccess access_;
  std::function<std::string()> metrics_;
};

HttpReply error_reply(const Error& error);

}  // namespace guestagent::controller

// The routes of the controller's API: HTTP in, HTTP out, without a socket.
#pragma once

#include "controller/event_hub.h"
#include "controller/task_manager.h"
#include "controller/views.h"
#include "net/http_server.h"

namespace guestagent::controller {

// Who may ask for what.
struct ApiAccess {
  bool loopback_listener = false;   // by TCP only this host reaches it
  AgentAccessSettings agents = {};  // which of them may be registered
};

// Thread-safe.
class Api {
 public:
  // All outlive it.
  Api(State& state, TaskManager& tasks, Agents& agents, Live& live, EventHub& hub, const ApiAccess& access,
      std::function<std::string()> metrics);

  // Never throws. Errors are {"badRequest": {"code": 400, "message": …, "hint": …}} and the like.
  HttpReply handle(const ReceivedRequest& request);

 private:
  // `known` is set once the caller has proven that it may ask.
  HttpReply route(const ReceivedRequest& request, bool& known);
  // Nothing where the request may go on: it names this host, and comes from no page but the API's own.
  std::optional<HttpReply> refuse_strange_page(const ReceivedRequest& request) const;
  std::optional<HttpReply> refuse_stranger(const ReceivedRequest& request) const;
  HttpReply on_instances(const ReceivedRequest& request);
  HttpReply on_instance(const ReceivedRequest& request, const std::string& id);
  // Nothing where the request was not sent before.
  std::optional<HttpReply> answer_again(const RequestMark& mark);
  HttpReply register_host(const ReceivedRequest& request);
  HttpReply registered(const std::string& id);
  HttpReply instance_action(const ReceivedRequest& request, const std::string& id);
  HttpReply topology_action(const ReceivedRequest& request, const std::string& id);
  HttpReply task_action(const ReceivedRequest& request, const std::string& id);
  HttpReply events(const ReceivedRequest& request);

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

// Who listens to GET /events, and what each has still to be sent.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "controller/model.h"
#include "controller/state.h"
#include "net/http_server.h"

namespace guestagent::controller {

// The end of one listener. Thread-safe.
class EventStream final : public EventSource {
 public:
  std::string take() override;
  bool closed() const override;
  void on_ready(std::function<void()> wake) override;

 private:
  friend class EventHub;
  void put(const std::string& frame);
  void close();
  mutable std::mutex mutex_;
  std::string waiting_;
  bool closed_ = false;
  std::function<void()> wake_;
};

// Frames: `event` (an Event, with its seq as id), `instance`, `task` (what GET answers for it), `topology`
// (who follows whom has changed: look again). Instances and tasks are told at most four times a second, as
// they are then. Thread-safe.
class EventHub {
 public:
  using Render = std::function<std::string(const std::string& id)>;  // JSON on one line; empty: it is gone
  EventHub(Render instance, Render task);
  ~EventHub();

  void changed(const std::vector<Change>& changes);
  void instance_changed(const std::string& id);
  void task_changed(const std::string& id);

  // `first`: frames that it gets before all others.
  std::shared_ptr<EventStream> listen(std::string first);
  // Ends all streams and the thread.
  void shut_down();

  static std::string frame(const Event& event);

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

std::string write_event(const Event& event);

}  // namespace guestagent::controller

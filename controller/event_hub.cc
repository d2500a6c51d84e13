#include "controller/event_hub.h"

#include <condition_variable>
#include <set>
#include <thread>

#include "base/json.h"
#include "base/log.h"

namespace guestagent::controller {
namespace {

constexpr Millis kTick{250};
constexpr std::size_t kMostWaiting = std::size_t{1} << 20;  // of one listener that does not read

std::string make_frame(std::string_view name, const std::string& data) {
  return "event: " + std::string(name) + "\ndata: " + data + "\n\n";
}

}  // namespace

std::string write_event(const Event& event) {
  JsonWriter out;
  out.begin_object()
      .member("seq", event.seq)
      .member("at", event.at)
      .member("level", event.level)
      .member("kind", event.kind);
  if (!event.instance_id.empty()) out.member("instance_id", event.instance_id);
  if (!event.task_id.empty()) out.member("task_id", event.task_id);
  return out.member("message", event.message).end_object().text();
}

std::string EventHub::frame(const Event& event) {
  return "id: " + std::to_string(event.seq) + "\n" + make_frame("event", write_event(event));
}

std::string EventStream::take() {
  std::lock_guard lock(mutex_);
  return std::exchange(waiting_, {});
}

bool EventStream::closed() const {
  std::lock_guard lock(mutex_);
  return closed_;
}

void EventStream::on_ready(std::function<void()> wake) {
  std::lock_guard lock(mutex_);
  wake_ = std::move(wake);
}

void EventStream::put(const std::string& frame) {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  waiting_ += frame;
  // It comes back, and looks at everything anew.
  if (waiting_.size() > kMostWaiting) closed_ = true;
  if (wake_) wake_();
}

void EventStream::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  if (wake_) wake_();
}

struct EventHub::Shared {
  Render instance, task;
  std::mutex mutex;
  std::condition_variable_any changed;
  std::vector<Event> events;
  std::set<std::string> instances, tasks;
  bool topology = false;
  std::vector<std::weak_ptr<EventStream>> streams;
  std::jthread thread;

  void tell(std::stop_token stop) {
    while (!stop.stop_requested()) {
      std::vector<Event> new_events;
      std::set<std::string> new_instances, new_tasks;
      bool new_topology = false;
      std::vector<std::shared_ptr<EventStream>> listeners;
      {
        std::unique_lock lock(mutex);
        if (!changed.wait(lock, stop,
                          [&] { return topology || !events.empty() || !instances.empty() || !tasks.empty(); }))
          return;
        new_events.swap(events);
        new_instances.swap(instances);
        new_tasks.swap(tasks);
        new_topology = std::exchange(topology, false);
        std::erase_if(streams, [](const auto& weak) { return weak.expired(); });
        for (const auto& weak : streams) {
          if (auto stream = weak.lock()) listeners.push_back(std::move(stream));
        }
      }
      if (!listeners.empty()) {
        std::string frames;
        for (const Event& event : new_events) frames += frame(event);
        if (new_topology) frames += make_frame("topology", "{}");
        const auto render = [&](const char* name, const Render& write, const std::set<std::string>& ids) {
          for (const std::string& id : ids) {
            try {
              const std::string json = write(id);
              if (!json.empty()) frames += make_frame(name, json);
            } catch (const std::exception& e) {
              log_warning("an event could not be told", {{"id", id}, {"error", e.what()}});
            }
          }
        };
        render("instance", instance, new_instances);
        render("task", task, new_tasks);
        for (const auto& stream : listeners) stream->put(frames);
      }
      std::unique_lock lock(mutex);
      changed.wait_for(lock, stop, kTick, [] { return false; });
    }
  }
};

EventHub::EventHub(Render instance, Render task) : shared_(std::make_unique<Shared>()) {
  shared_->instance = std::move(instance);
  shared_->task = std::move(task);
  shared_->thread = std::jthread([this](std::stop_token stop) { shared_->tell(stop); });
}

EventHub::~EventHub() {
  shut_down();
}

void EventHub::changed(const std::vector<Change>& changes) {
  {
    std::lock_guard lock(shared_->mutex);
    for (const Change& change : changes) {
      switch (change.kind) {
        case Change::Kind::event:
          shared_->events.push_back(change.event);
          break;
        case Change::Kind::instance:
          shared_->instances.insert(change.id);
          break;
        case Change::Kind::task:
          shared_->tasks.insert(change.id);
          break;
        case Change::Kind::topology:
          shared_->topology = true;
          break;
      }
    }
  }
  shared_->changed.notify_one();
}

void EventHub::instance_changed(const std::string& id) {
  changed({{Change::Kind::instance, id, {}}});
}
void EventHub::task_changed(const std::string& id) {
  changed({{Change::Kind::task, id, {}}});
}

std::shared_ptr<EventStream> EventHub::listen(std::string first) {
  auto stream = std::make_shared<EventStream>();
  stream->put(first);
  std::lock_guard lock(shared_->mutex);
  shared_->streams.push_back(stream);
  return stream;
}

void EventHub::shut_down() {
  if (shared_->thread.joinable()) {
    shared_->thread.request_stop();
    shared_->thread.join();
  }
  std::lock_guard lock(shared_->mutex);
  for (const auto& weak : shared_->streams) {
    if (const auto stream = weak.lock()) stream->close();
  }
  shared_->streams.clear();
}

}  // namespace guestagent::controller

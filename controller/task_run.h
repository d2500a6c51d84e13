// One task on its way, in a thread of its own. For task_manager.cc.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <stop_token>

#include "controller/cleaner.h"
#include "controller/task_manager.h"

namespace guestagent::controller {

// At most so many at a time, of all tasks.
class Limiter {
 public:
  explicit Limiter(unsigned most) : free_(most) {}
  class Place {
   public:
    explicit Place(Limiter& limiter) : limiter_(limiter) {}
    ~Place() { limiter_.give_back(); }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

   private:
    Limiter& limiter_;
  };
  // nullptr when stopped or cancelled before there was a place.
  std::unique_ptr<Place> take(const std::function<bool()>& cancelled, std::stop_token stop);

 private:
  void give_back();
  std::mutex mutex_;
  std::condition_variable_any changed_;
  unsigned free_;
};

struct TaskTools {  // all outlive the run
  State& state;
  Agents& agents;
  Provisioner& provisioner;
  Live& live;
  const ControllerSettings& settings;
  Clock& clock;
  Limiter &limiter, &stage_limiter;  // of their own, so that no task's attach waits for another one's snapshot
  // Asks an instance's agent for its status now. Throws nothing.
  std::function<void(const std::string& instance_id, std::stop_token)> look;
};

class Staging;

class TaskRun {
 public:
  TaskRun(TaskTools tools, std::string task_id, bool cancelled);
  ~TaskRun();
  void cancel() { cancelled_ = true; }
  // To the end of the task, or until `stop`. Never throws.
  void run(std::stop_token stop);

 private:
  void one_step(const Task& task, std::stop_token stop);
  void take_snapshot(const Task& task, std::stop_token stop);
  void make_replicas(const Task& task, std::stop_token stop);
  void make_replica(const Task& task, const Replica& replica, const Secret& metadata, std::uint64_t dataset_size,
                    std::stop_token stop);
  // False when it failed and the state says so.
  bool make_host(const Task& task, const Replica& replica, std::stop_token stop);
  void attach(const Task& task, const Replica& replica, const Secret& metadata, std::stop_token stop);
  void detach(const Task& task, std::stop_token stop);
  void clean_up(const Task& task, std::stop_token stop);
  JobEnd follow(const Task& task, int number, const RemoteJob& job, std::stop_token stop);
  State::HostAfter host_after(const Task& task, const std::string& instance_id);

  TaskTools t_;
  std::string id_;
  std::atomic<bool> cancelled_;
  JobRunner runner_;
  std::unique_ptr<Staging> staging_;
};

}  // namespace guestagent::controller

#include "agent/app.h"

namespace guestagent {

App::App(Settings read, bool allow_async, Jobs::Observer observer)
    : settings(std::move(read)),
      store(make_store(settings.storage, system_clock())),
      parts(make_datastore(settings, system_clock())),
      operations(settings, *store, *parts.datastore, *parts.upkeep, *parts.roles, throttle, system_clock()),
      jobs(
          settings.agent,
          [this](const std::string& method, JobContext& job) { return operations.recover(method, job); },
          system_clock(), std::move(observer)),
      dispatcher(operations, jobs, allow_async) {
  set_throttle(settings.snapshot.throttle);
}

void App::set_throttle(const ThrottleSettings& limits) {
  throttle.upload.set(limits.upload);
  throttle.download.set(limits.download);
  throttle.read.set(limits.read);
}

}  // namespace guestagent

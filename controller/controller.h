// The role itself: all parts together, from the configuration to the end of the process.
#pragma once

#include <memory>

#include "config/controller_settings.h"

namespace guestagent::controller {

class Controller {
 public:
  // Opens the state, listens. Throws Error.
  explicit Controller(const ControllerSettings& settings);
  ~Controller();
  std::uint16_t port() const;
  // Reads the files of the listener's TLS again. What goes wrong is in the log.
  void reload();
  // Goes on with unfinished tasks and serves.
  void start();
  void stop();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// Until SIGINT or SIGTERM; SIGHUP reloads. The exit status.
int run_controller(const ControllerSettings& settings);

}  // namespace guestagent::controller

#include "agent/signals.h"

#include <pthread.h>

#include <csignal>
#include <ctime>

namespace guestagent {
namespace {

sigset_t watched() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  return set;
}

}  // namespace

void hold_signals() {
  std::signal(SIGPIPE, SIG_IGN);
  const sigset_t set = watched();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

SignalWatch::SignalWatch(std::function<void(int)> handle)
    : thread_([handle = std::move(handle)](std::stop_token stop) {
        const sigset_t set = watched();
        constexpr timespec kLook{0, 100'000'000};
        while (!stop.stop_requested()) {
          if (const int signal = ::sigtimedwait(&set, nullptr, &kLook); signal > 0) handle(signal);
        }
      }) {}

}  // namespace guestagent

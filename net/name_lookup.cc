#include "net/name_lookup.h"

#include <netdb.h>
#include <sys/socket.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

namespace guestagent {
namespace {

constexpr int kMostLookups = 64;

struct Asked {
  std::mutex mutex;
  std::condition_variable_any changed;
  bool done = false;
  std::vector<std::string> found;
  std::optional<Error> failed;
};

}  // namespace

std::vector<std::string> NameLookup::find(const std::string& host, SteadyTime until, const std::stop_token& stop) {
  auto asked = std::make_shared<Asked>();
  if (++*running_ > kMostLookups) {
    --*running_;
    throw Error(Code::unavailable, "too many names are being looked up: the resolver does not answer");
  }
  try {
    std::thread([asked, host, resolver = resolver_, running = running_] {
      std::vector<std::string> found;
      std::optional<Error> failed;
      try {
        found = resolver(host);
      } catch (const std::exception& e) {
        failed = to_error(e);
      }
      --*running;
      const std::lock_guard lock(asked->mutex);
      asked->found = std::move(found);
      asked->failed = std::move(failed);
      asked->done = true;
      asked->changed.notify_all();
    }).detach();
  } catch (const std::system_error& e) {
    --*running_;
    throw Error(Code::unavailable, std::string("no thread to look its name up: ") + e.what());
  }
  std::unique_lock lock(asked->mutex);
  const auto done = [&] { return asked->done; };
  // The farthest time is none that a condition variable can wait for.
  const bool came = until == SteadyTime::max() ? asked->changed.wait(lock, stop, done)
                                               : asked->changed.wait_until(lock, stop, until, done);
  if (!came) {
    if (stop.stop_requested()) throw Error(Code::cancelled, "cancelled on request");
    throw Error(Code::deadline_exceeded, "its name was not found out in time: is the resolver of this host well?");
  }
  if (asked->failed) throw Error(*asked->failed);
  if (asked->found.empty()) throw Error(Code::unavailable, "no such host: it has no address");
  return asked->found;
}

std::vector<std::string> resolve_by_system(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  int failed = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (failed != 0) {  // a host without a network has its loopback all the same
    hints.ai_flags = 0;
    failed = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
  }
  if (failed != 0) throw Error(Code::unavailable, std::string("no such host: ") + ::gai_strerror(failed));
  std::vector<std::string> out;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    char text[NI_MAXHOST];
    if (::getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      out.emplace_back(text);
  }
  ::freeaddrinfo(found);
  return out;
}

}  // namespace guestagent

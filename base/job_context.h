// What a long operation needs to know of the job that it is a part of.
#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string_view>

#include "base/error.h"
#include "base/journal.h"

namespace guestagent {

// All but journal() may be called from any thread.
class JobContext {
 public:
  virtual ~JobContext() = default;

  // Requested when the job is cancelled; long waits take it.
  virtual std::stop_token stop_token() const = 0;
  // What the job does now, one lower-case word or two: "copy", "catch up". Starts a new progress.
  virtual void phase(std::string_view name) = 0;
  // Bytes (or whatever the phase counts) done so far in this phase, and of how many when that is known.
  virtual void progress(std::uint64_t done, std::optional<std::uint64_t> total) = 0;
  // For the operator: shown with the job and logged; the job goes on.
  virtual void warn(std::string_view message) = 0;
  // The snapshot that it makes has its place in the store, where others can find it while it grows.
  virtual void has_place(std::string_view snapshot_href) { static_cast<void>(snapshot_href); }
  virtual Journal& journal() = 0;

  // Throws Error(cancelled) once cancellation was requested.
  void check_cancelled() const {
    if (stop_token().stop_requested()) throw Error(Code::cancelled, "cancelled on request");
  }
};

}  // namespace guestagent

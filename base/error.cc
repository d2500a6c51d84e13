#include "base/error.h"

#include <array>
#include <cerrno>
#include <system_error>

namespace guestagent {
namespace {

// JSON-RPC's own numbers where it has one (-32602, -32601, -32603), else -32000 minus gRPC's number of the
// code.
constexpr std::array<CodeRow, 13> kCodes = {{
    {Code::cancelled, "CANCELLED", -32001, 11},
    {Code::invalid_argument, "INVALID_ARGUMENT", -32602, 2},
    {Code::deadline_exceeded, "DEADLINE_EXCEEDED", -32004, 14},
    {Code::not_found, "NOT_FOUND", -32005, 15},
    {Code::already_exists, "ALREADY_EXISTS", -32006, 16},
    {Code::permission_denied, "PERMISSION_DENIED", -32007, 17},
    {Code::resource_exhausted, "RESOURCE_EXHAUSTED", -32008, 18},
    {Code::failed_precondition, "FAILED_PRECONDITION", -32009, 19},
    {Code::unimplemented, "UNIMPLEMENTED", -32601, 22},
    {Code::internal, "INTERNAL", -32603, 23},
    {Code::unavailable, "UNAVAILABLE", -32014, 24},
    {Code::data_loss, "DATA_LOSS", -32015, 25},
    {Code::busy, "BUSY", -32050, 30},
}};

}  // namespace

const CodeRow& code_row(Code code) {
  for (const CodeRow& row : kCodes) {
    if (row.code == code) return row;
  }
  return kCodes[9];
}

Code code_from_wire(std::string_view wire) {
  for (const CodeRow& row : kCodes) {
    if (row.wire == wire) return row.code;
  }
  return Code::internal;
}

Error Error::with_context(std::string_view what) const {
  return Error(code_, std::string(what) + ": " + this->what(), hint_);
}

Error system_error(std::string_view what, int err) {
  const std::string message = std::string(what) + ": " + std::generic_category().message(err);
  switch (err) {
    case ENOSPC:
    case EDQUOT:
      return Error(Code::resource_exhausted, message, "free space on that file system, or configure another place");
    case EFBIG:
      return Error(Code::resource_exhausted, message,
                   "neither the file system nor a limit (ulimit -f, LimitFSIZE=) may be smaller than the files");
    case ENOENT:
      return Error(Code::not_found, message);
    case EACCES:
    case EPERM:
      return Error(Code::permission_denied, message,
                   "check owner and mode, and that the file system is mounted read-write");
    case EROFS:
      return Error(Code::permission_denied, message,
                   "mount the file system read-write; under systemd, name the directory in the unit's "
                   "ReadWritePaths= (systemctl edit guestagent)");
    case EAGAIN:
      return Error(
          Code::resource_exhausted, message,
          "the host or the unit allows no more processes or threads: raise TasksMax= (systemctl edit guestagent), the "
          "container's pids limit or ulimit -u");
    case EMFILE:
    case ENFILE:
      return Error(Code::resource_exhausted, message, "raise the limit of open files (LimitNOFILE=, ulimit -n)");
    case ENOMEM:
      return Error(Code::resource_exhausted, message, "lower snapshot.memory_limit or give the host more memory");
    case EEXIST:
      return Error(Code::already_exists, message);
    default:
      return Error(Code::internal, message);
  }
}

Error to_error(const std::exception& e) {
  if (const auto* ours = dynamic_cast<const Error*>(&e)) return *ours;
  if (dynamic_cast<const std::bad_alloc*>(&e) != nullptr) {
    return Error(Code::resource_exhausted, "out of memory", "lower snapshot.memory_limit or give the host more memory");
  }
  // What the standard library throws names no call: of threads it is the only one that this program asks it for.
  if (const auto* failed = dynamic_cast<const std::system_error*>(&e);
      failed && failed->code() == std::errc::resource_unavailable_try_again) {
    return system_error("starting a thread", EAGAIN);
  }
  return Error(Code::internal, e.what());
}

}  // namespace guestagent

// The journal of systemd by its native protocol: one datagram an entry, with fields. For base/log.cc.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unique_fd.h"

namespace guestagent {

inline constexpr const char* kJournaldSocket = "/run/systemd/journal/socket";

// True when `fd` is the stream that the variable JOURNAL_STREAM ("device:inode") speaks of.
bool is_journal_stream(int fd, const char* journal_stream);

// Thread-safe.
class Journald {
 public:
  explicit Journald(const char* socket_path = kJournaldSocket);
  // False when the journal does not take it; the caller then writes its line elsewhere.
  bool send(const std::vector<std::pair<std::string, std::string>>& fields) const;

 private:
  UniqueFd fd_;
};

// A valid field name from one of ours: "job_id" -> "JOB_ID".
std::string journal_field(std::string_view name);

}  // namespace guestagent

#include "base/journald.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstdint>
#include <cstring>

namespace guestagent {

bool is_journal_stream(int fd, const char* journal_stream) {
  struct stat info {};
  if (journal_stream == nullptr || ::fstat(fd, &info) != 0) return false;
  return std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino) == journal_stream;
}

Journald::Journald(const char* socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (std::strlen(socket_path) >= sizeof address.sun_path) return;
  std::strcpy(address.sun_path, socket_path);
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return;
  fd_ = std::move(fd);
}

bool Journald::send(const std::vector<std::pair<std::string, std::string>>& fields) const {
  if (!fd_) return false;
  std::string entry;
  for (const auto& [name, value] : fields) {
    entry += name;
    if (value.find('\n') == std::string::npos) {
      entry += '=' + value + '\n';
      continue;
    }
    // A value of several lines: its length as 64 bits, little endian.
    entry += '\n';
    for (unsigned shift = 0; shift < 64; shift += 8)
      entry += static_cast<char>(std::uint64_t{value.size()} >> shift & 0xFF);
    entry += value + '\n';
  }
  return ::send(fd_.get(), entry.data(), entry.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(entry.size());
}

std::string journal_field(std::string_view name) {
  std::string out;
  for (const char c : name.substr(0, 64)) {
    const bool lower = c >= 'a' && c <= 'z', keep = (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    out += lower ? static_cast<char>(c - 'a' + 'A') : keep ? c : '_';
  }
  // A leading underscore is the journal's own, a leading digit not allowed.
  if (out.empty() || out[0] == '_' || (out[0] >= '0' && out[0] <= '9')) out.insert(0, "F");
  return out;
}

}  // namespace guestagent

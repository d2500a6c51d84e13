// A value that must not be seen: passwords, tokens, keys.
#pragma once

#include <ostream>
#include <string>
#include <string_view>

namespace guestagent {

// Holds a secret. Printing or formatting one yields "***"; its bytes are wiped when it is destroyed or overwritten.
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string value) : value_(std::move(value)) {}
  Secret(const Secret&) = default;
  Secret(Secret&& other) noexcept : value_(other.value_) { other.wipe(); }
  Secret& operator=(const Secret& other);
  Secret& operator=(Secret&& other) noexcept;
  ~Secret() { wipe(); }

  bool empty() const { return value_.empty(); }
  // The value itself: only for the call that needs it, never for a log, an error, argv or the environment.
  const std::string& reveal() const { return value_; }

  bool operator==(const Secret& other) const { return value_ == other.value_; }

 private:
  void wipe();
  std::string value_;
};

inline std::ostream& operator<<(std::ostream& out, const Secret&) {
  return out << "***";
}

// A new random password of `length` characters of [A-Za-z0-9], from the kernel's generator. Throws Error.
Secret random_password(std::size_t length);

// `bytes` random bytes as lower-case hex; for ids, not for secrets. Throws Error.
std::string random_hex(std::size_t bytes);

// The secret in a file: its content without one end of line (LF or CR LF). Refuses (permission_denied) a file that
// others can read, and (invalid_argument) what is no secret of one line: empty, more lines, control characters, a byte
// order mark.
Secret secret_from_file(const std::string& path);

}  // namespace guestagent

#include "base/secret.h"

#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/error.h"
#include "base/file.h"
#include "base/unique_fd.h"

namespace guestagent {
namespace {

constexpr std::size_t kMaxSecretBytes = 64 << 10;
constexpr const char* kWriteSecret = "write the secret into it, in one line and nothing else";

// What nobody means as a part of a password, and no header can carry.
std::string_view why_no_secret(std::string_view text) {
  if (text.empty()) return "it is empty";
  if (text.starts_with("\xEF\xBB\xBF")) return "it begins with a byte order mark (EF BB BF)";
  for (const char c : text) {
    if (c == '\n' || c == '\r') return "it has more than one line";
    if (c == '\0') return "it has a NUL byte";
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return "it has a control character";
  }
  return {};
}

void fill_random(unsigned char* into, std::size_t size) {
  while (size > 0) {
    const ssize_t n = ::getrandom(into, size, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error("reading random bytes from the kernel", errno);
    into += n;
    size -= static_cast<std::size_t>(n);
  }
}

}  // namespace

Secret& Secret::operator=(const Secret& other) {
  if (this != &other) {
    wipe();
    value_ = other.value_;
  }
  return *this;
}

Secret& Secret::operator=(Secret&& other) noexcept {
  if (this != &other) {
    wipe();
    value_.swap(other.value_);
  }
  return *this;
}

void Secret::wipe() {
  // The whole allocation: what was moved in may once have been longer.
  value_.resize(value_.capacity());
  ::explicit_bzero(value_.data(), value_.size());
  value_.clear();
}

Secret random_password(std::size_t length) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  std::string text;
  text.reserve(length);
  unsigned char bytes[64];
  while (text.size() < length) {
    fill_random(bytes, sizeof bytes);
    for (const unsigned char byte : bytes) {
      // Bytes past the last multiple of 62 would make some letters likelier than others.
      if (byte < 248 && text.size() < length) text += kAlphabet[byte % kAlphabet.size()];
    }
  }
  ::explicit_bzero(bytes, sizeof bytes);
  return Secret(std::move(text));
}

std::string random_hex(std::size_t bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string raw(bytes, '\0');
  fill_random(reinterpret_cast<unsigned char*>(raw.data()), raw.size());
  std::string hex;
  hex.reserve(2 * bytes);
  for (const char c : raw) {
    const auto byte = static_cast<unsigned char>(c);
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

Secret secret_from_file(const std::string& path) {
  const std::string doing = "reading the secret file " + path;
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) throw system_error(doing, errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) throw system_error(doing, errno);
  if (!S_ISREG(info.st_mode)) throw Error(Code::invalid_argument, doing + ": it is not a regular file", kWriteSecret);
  require_trusted(fd.get(), doing, path);
  if ((info.st_mode & (S_IROTH | S_IWOTH)) != 0) {
    throw Error(Code::permission_denied, doing + ": others than its owner and group can read or write it",
                "chmod 600 " + path);
  }
  std::string text(kMaxSecretBytes + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t n = ::read(fd.get(), text.data() + size, text.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error(doing, errno);
    if (n == 0) break;
    size += static_cast<std::size_t>(n);
  }
  if (size > kMaxSecretBytes) throw Error(Code::invalid_argument, doing + ": it is larger than 64 KiB", kWriteSecret);
  if (size > 0 && text[size - 1] == '\n') --size;
  if (size > 0 && text[size - 1] == '\r') --size;  // of an editor with lines of another kind
  const std::string_view why = why_no_secret({text.data(), size});
  Secret secret{text.substr(0, size)};
  ::explicit_bzero(text.data(), text.size());
  if (!why.empty()) throw Error(Code::invalid_argument, doing + ": " + std::string(why), kWriteSecret);
  return secret;
}

}  // namespace guestagent

#include "storage/key_files.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/file.h"
#include "base/unique_fd.h"

namespace guestagent {
namespace {

Key read_key(const fs::path& file) {
  const std::string what = "reading an encryption key: " + file.string();
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) throw system_error(what, errno);
  struct stat info = {};
  if (::fstat(fd.get(), &info) != 0) throw system_error(what, errno);
  if (!S_ISREG(info.st_mode))
    throw Error(Code::invalid_argument, what + ": not a regular file", "name the file with the key");
  require_trusted(fd.get(), what, file);
  if ((info.st_mode & 077) != 0) {
    throw Error(Code::permission_denied, what + ": others than its owner can read it", "chmod 600 " + file.string());
  }
  Key key;
  std::array<std::byte, key.size() + 1> bytes;
  const ssize_t n = ::read(fd.get(), bytes.data(), bytes.size());
  if (n < 0) throw system_error(what, errno);
  if (n != static_cast<ssize_t>(key.size())) {
    OPENSSL_cleanse(bytes.data(), bytes.size());
    throw Error(Code::invalid_argument, what + ": it must have exactly 32 bytes",
                "make one: head -c 32 /dev/urandom > FILE; chmod 600 FILE");
  }
  std::copy_n(bytes.begin(), key.size(), key.begin());
  OPENSSL_cleanse(bytes.data(), bytes.size());
  return key;
}

}  // namespace

SnapshotKeys load_keys(const EncryptionSettings& settings, std::string_view id) {
  for (const EncryptionSettings::KeyFile& entry : settings.keys) {
    if (entry.id != id) continue;
    Key key = read_key(entry.file);
    SnapshotKeys keys = derive_keys(entry.id, key);
    OPENSSL_cleanse(key.data(), key.size());
    return keys;
  }
  throw Error(Code::failed_precondition, "looking for an encryption key: \"" + std::string(id) + "\": not configured",
              "add it to snapshot.encryption.keys");
}

std::optional<SnapshotKeys> keys_to_read(const EncryptionSettings& settings, const std::optional<std::string>& id) {
  if (id) return load_keys(settings, *id);
  if (settings.write_key.empty() || settings.allow_plain) return std::nullopt;
  throw Error(Code::failed_precondition,
              "manifest.encryption: the snapshot is not encrypted, but this host has snapshot.encryption.write_key: "
              "somebody may have put it "
              "in an encrypted one's place",
              "if it is known to be of before the key: set snapshot.encryption.allow_plain: true, or give "
              "--allow-plain to cat and restore");
}

}  // namespace guestagent

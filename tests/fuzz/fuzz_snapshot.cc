// Any bytes are a manifest or an index that survives a round trip, or an Error that says what is wrong with them. The
// first byte says which, and whether with a key: m M i I.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "storage/snapshot_format.h"

using guestagent::Code;
using guestagent::Error;
using guestagent::SnapshotKeys;

namespace {

SnapshotKeys fuzz_keys() {
  guestagent::Key key;
  key.fill(static_cast<std::byte>('k'));
  return guestagent::derive_keys("2026", key);
}

void manifest(std::string_view text, const SnapshotKeys* keys) {
  guestagent::manifest_key_id(text);
  const std::string written = guestagent::write_manifest(guestagent::parse_manifest(text, keys), keys);
  if (guestagent::write_manifest(guestagent::parse_manifest(written, keys), keys) != written) std::abort();
}

void index(std::string_view text, const SnapshotKeys* keys) {
  const std::string written = guestagent::write_index(guestagent::parse_index(text, keys), keys);
  if (guestagent::write_index(guestagent::parse_index(written, keys), keys) != written) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  static const SnapshotKeys keys = fuzz_keys();
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const bool with_key = data[0] == 'M' || data[0] == 'I';
  try {
    if (data[0] == 'i' || data[0] == 'I') {
      index(text, with_key ? &keys : nullptr);
    } else {
      manifest(text, with_key ? &keys : nullptr);
    }
  } catch (const Error& error) {
    if (error.code() != Code::data_loss && error.code() != Code::failed_precondition) std::abort();
  }
  return 0;
}

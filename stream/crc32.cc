#include "stream/crc32.h"

#include <zlib.h>

namespace guestagent {

std::uint32_t crc32(std::uint32_t so_far, Bytes bytes) {
  return static_cast<std::uint32_t>(
      ::crc32_z(so_far, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<z_size_t>(bytes.size())));
}

}  // namespace guestagent

// CRC-32 (ISO 3309), as zlib and the backup tools count it.
#pragma once

#include <cstdint>

#include "stream/byte_stream.h"

namespace guestagent {

// Of what `so_far` is the sum of, followed by `bytes`; 0 is the sum of nothing.
std::uint32_t crc32(std::uint32_t so_far, Bytes bytes);

}  // namespace guestagent

// The outer form of a zstd frame (RFC 8878), checked before anything is allocated for it.
#pragma once

#include "stream/buffer.h"

namespace guestagent {

// Throws Error(data_loss) unless `stored` is one whole frame and nothing else, whose window is at most 8 MiB or
// `raw_size`: the window is what a decoder allocates, and a hostile frame asks for as much as it likes.
void check_zstd_frame(const Buffer& stored, std::uint64_t raw_size);

}  // namespace guestagent

// Compression, by libarchive. One segment is one complete frame of the stock format: `zstd -d`, `lz4 -d` and `gzip -d`
// read it, alone or joined with its neighbours.
#pragma once

#include <string_view>

#include "stream/buffer.h"

namespace guestagent {

enum class Codec { none, zstd, lz4, gzip };

// "none", "zstd", "lz4", "gzip" (the names of the RPC and the manifest). codec_from throws Error(invalid_argument).
std::string_view codec_name(Codec codec);
Codec codec_from(std::string_view name);

// The file-name suffix of the stock tool: "", "zst", "lz4", "gz".
std::string_view codec_suffix(Codec codec);

// Compresses `raw`, which is freed chunk by chunk on the way, into one frame. `level` 0 is the codec's fast default
// (zstd 1, lz4 1, gzip 1); otherwise 1..9. An empty buffer gives a valid empty frame. Thread-safe.
Buffer compress(Codec codec, int level, Buffer raw);

// The reverse, for exactly one frame of `raw_size` bytes. Throws Error(data_loss) when the input is damaged, cut, of
// another codec, longer or shorter than `raw_size`; never uses more memory than input and output together. Thread-safe.
Buffer decompress(Codec codec, Buffer stored, std::uint64_t raw_size);

}  // namespace guestagent

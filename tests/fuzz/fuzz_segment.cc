// Any bytes are a frame of exactly the size that was announced, or DATA_LOSS: never more memory, never a crash in a
// decoder. The first byte is the codec (n z l g), the next two the announced size in KiB.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "stream/codec.h"

using guestagent::Buffer;
using guestagent::Codec;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  const Codec codec = data[0] == 'z'   ? Codec::zstd
                      : data[0] == 'l' ? Codec::lz4
                      : data[0] == 'g' ? Codec::gzip
                                       : Codec::none;
  const std::uint64_t raw_size = (std::uint64_t{data[1]} << 8 | data[2]) * 1024;
  const std::string_view stored(reinterpret_cast<const char*>(data) + 3, size - 3);
  try {
    if (guestagent::decompress(codec, Buffer::from(stored), raw_size).size() != raw_size) std::abort();
  } catch (const guestagent::Error& error) {
    if (error.code() != guestagent::Code::data_loss) std::abort();
  }
  return 0;
}

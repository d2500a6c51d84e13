#include "storage/segment_coding.h"

#include "base/error.h"
#include "stream/cipher.h"

namespace guestagent {
namespace {

std::string cipher_context(const SegmentCoding& coding, std::uint64_t number) {
  return "guestagent1|" + coding.snapshot_id + '|' + std::to_string(number);
}

}  // namespace

SealedSegment seal_segment(const SegmentCoding& coding, std::uint64_t number, Buffer raw) {
  SealedSegment segment;
  segment.number = number;
  segment.entry.name = segment_name(number);
  segment.entry.raw_bytes = raw.size();
  if (!coding.keys) segment.entry.xxh3 = xxh3_hex(raw);
  segment.stored = compress(coding.codec, coding.level, std::move(raw));
  if (coding.keys) {
    segment.stored = encrypt(coding.keys->segment, cipher_context(coding, number), std::move(segment.stored));
  }
  segment.entry.stored_bytes = segment.stored.size();
  segment.entry.sha256 = sha256_hex(segment.stored);
  return segment;
}

void check_stored(const SegmentEntry& entry, const Buffer& stored) {
  if (stored.size() != entry.stored_bytes) {
    throw Error(Code::data_loss, "it has " + std::to_string(stored.size()) + " bytes on the store, not the " +
                                     std::to_string(entry.stored_bytes) + " that were written");
  }
  if (sha256_hex(stored) != entry.sha256) {
    throw Error(Code::data_loss, "its bytes on the store are not those that were written (sha256)");
  }
}

Buffer open_stored(const SegmentCoding& coding, std::uint64_t number, const SegmentEntry& entry, Buffer stored) {
  if (coding.keys) stored = decrypt(coding.keys->segment, cipher_context(coding, number), std::move(stored));
  Buffer raw = decompress(coding.codec, std::move(stored), entry.raw_bytes);
  if (!coding.keys && xxh3_hex(raw) != entry.xxh3) {
    throw Error(Code::data_loss, "its decompressed bytes are not those of the source (xxh3)");
  }
  return raw;
}

Buffer open_segment(const SegmentCoding& coding, std::uint64_t number, const SegmentEntry& entry, Buffer stored) {
  check_stored(entry, stored);
  return open_stored(coding, number, entry, std::move(stored));
}

}  // namespace guestagent

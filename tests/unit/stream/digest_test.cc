// Known answers from the standards: a digest that is only equal to itself proves nothing.
#include "stream/digest.h"

#include <gtest/gtest.h>

#include "tests/support/bytes.h"

namespace guestagent {
namespace {

Key key_of(std::byte fill) {
  Key key;
  key.fill(fill);
  return key;
}

TEST(Digest, KnownAnswers) {
  const Buffer abc = Buffer::from("abc");
  EXPECT_EQ(sha256_hex(abc), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(as_bytes("abc")), sha256_hex(abc));
  EXPECT_EQ(sha256_hex(Buffer()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(md5_hex(abc), "900150983cd24fb0d6963f7d28e17f72");
  // As `printf abc | xxhsum -H2` prints: the canonical order of bytes.
  EXPECT_EQ(xxh3_hex(abc), "06b05ab6733a618578af5f94892f3950");
  EXPECT_EQ(xxh3_hex(Buffer()), "99aa06d3014798d86001c324468d497f");
}

TEST(Digest, PiecesMakeNoDifference) {
  const std::string bytes = test::random_bytes(2 * kChunkBytes + 1000, 5);
  Hasher whole(Hash::sha256);
  whole.update(as_bytes(bytes));
  EXPECT_EQ(whole.hex(), sha256_hex(Buffer::from(bytes)));
}

TEST(Digest, HmacOfRfc4231) {
  // Test case 2 has a short key; keys here are 32 bytes, and HMAC pads a shorter one with zeros.
  Key key{};
  const std::string jefe = "Jefe";
  for (std::size_t i = 0; i < jefe.size(); ++i) key[i] = static_cast<std::byte>(jefe[i]);
  EXPECT_EQ(hmac_sha256_hex(key, as_bytes("what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Digest, HkdfIsExtractThenExpand) {
  // RFC 5869 by its two steps, an empty salt being 32 zeros: T(1) = HMAC(HMAC(0, key), info | 0x01).
  const Key key = key_of(std::byte{0x0b});
  const std::string extracted = hmac_sha256_hex(Key{}, key);
  Key pseudo_random;
  for (std::size_t i = 0; i < pseudo_random.size(); ++i) {
    pseudo_random[i] = static_cast<std::byte>(std::stoi(extracted.substr(2 * i, 2), nullptr, 16));
  }
  EXPECT_EQ(to_hex(hkdf_sha256(key, "some info")), hmac_sha256_hex(pseudo_random, as_bytes("some info\x01")));
  EXPECT_NE(hkdf_sha256(key, "a"), hkdf_sha256(key, "b"));
}

TEST(Digest, ConstantTimeComparisonCompares) {
  EXPECT_TRUE(equal_in_constant_time("", ""));
  EXPECT_TRUE(equal_in_constant_time("abc", "abc"));
  EXPECT_FALSE(equal_in_constant_time("abc", "abd"));
  EXPECT_FALSE(equal_in_constant_time("abc", "ab"));
}

}  // namespace
}  // namespace guestagent

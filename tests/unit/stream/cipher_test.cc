#include "stream/cipher.h"

#include <gtest/gtest.h>

#include "tests/support/bytes.h"
#include "tests/support/errors.h"

namespace guestagent {
namespace {

using test::code_of;
using test::random_bytes;

const Key kKey = [] {
  Key key;
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i);
  return key;
}();

TEST(Cipher, RoundTripsEverySizeNearAChunk) {
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{4}, kChunkBytes - 28, kChunkBytes - 27, kChunkBytes - 20,
        kChunkBytes - 12, kChunkBytes - 5, kChunkBytes, kChunkBytes + 1, 3 * kChunkBytes + 9}) {
    const std::string plain = random_bytes(size, size);
    Buffer stored = encrypt(kKey, "context", Buffer::from(plain));
    EXPECT_EQ(stored.size(), size + kCipherOverhead);
    EXPECT_EQ(decrypt(kKey, "context", std::move(stored)).text(), plain) << size;
  }
}

// The layout is a contract: python3's cryptography made this, AESGCM(bytes(range(32))) with the nonce in front.
TEST(Cipher, OpensWhatAnotherProgramMade) {
  const std::string hex = "6465666768696a6b6c6d6e6f207eb20a16c576ec5b123381b90434fbe705d24af9038c0dc840fad085d7";
  std::string stored;
  for (std::size_t i = 0; i < hex.size(); i += 2) stored += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  EXPECT_EQ(decrypt(kKey, "guestagent1|id|1", Buffer::from(stored)).text(), "hello, replica");
}

TEST(Cipher, NoncesAreFresh) {
  const std::string one = encrypt(kKey, "c", Buffer::from("same")).text();
  const std::string two = encrypt(kKey, "c", Buffer::from("same")).text();
  EXPECT_NE(one.substr(0, 12), two.substr(0, 12));
  EXPECT_NE(one.substr(12), two.substr(12));
}

TEST(Cipher, AnyChangeIsDataLoss) {
  const std::string stored = encrypt(kKey, "context", Buffer::from("attack at dawn")).text();
  for (std::size_t bit = 0; bit < stored.size() * 8; ++bit) {
    std::string changed = stored;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_EQ(code_of([&] { decrypt(kKey, "context", Buffer::from(changed)); }), "DATA_LOSS") << bit;
  }
  for (std::size_t size = 0; size < stored.size(); ++size) {
    EXPECT_EQ(code_of([&] { decrypt(kKey, "context", Buffer::from(stored.substr(0, size))); }), "DATA_LOSS") << size;
  }
  EXPECT_EQ(code_of([&] { decrypt(kKey, "context", Buffer::from(stored + '\0')); }), "DATA_LOSS");
  EXPECT_EQ(code_of([&] { decrypt(kKey, "other", Buffer::from(stored)); }), "DATA_LOSS");
  Key other = kKey;
  other[31] ^= std::byte{1};
  EXPECT_EQ(code_of([&] { decrypt(other, "context", Buffer::from(stored)); }), "DATA_LOSS");
}

}  // namespace
}  // namespace guestagent

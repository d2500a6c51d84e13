#include "strategies/mysql/server/account_hash.h"

#include <gtest/gtest.h>

namespace guestagent::mysql {
namespace {

// SELECT PASSWORD('…') of a server.
TEST(AccountHash, NativeIsWhatServersStore) {
  EXPECT_EQ(native_password_hash(Secret("password")), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
  EXPECT_EQ(native_password_hash(Secret("root")), "*81F5E21E35407D884A6CD4A731AEBFB6AF209E1B");
  EXPECT_EQ(native_password_hash(Secret("123456")), "*6BB4837EB74329105EE4568DDA7DC67ED2CA2AD9");
}

// From `openssl passwd -5`, which takes salts of at most 16 characters; the rest of the algorithm is the
// same.
TEST(AccountHash, CachingSha2IsShaCrypt) {
  EXPECT_EQ(caching_sha2_hash(Secret("Hello world!"), "saltstring"),
            "$A$005$saltstring5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5");
  EXPECT_EQ(caching_sha2_hash(Secret("a much longer password than one digest of 32 bytes is"), "0123456789abcdef"),
            "$A$005$0123456789abcdefK0XWYu.6sQs3LU.vcj7FNkonvbiNiPTVGvj0xsjSwU3");
  EXPECT_EQ(caching_sha2_hash(Secret("p"), "x"), "$A$005$xh.brg.xG5lrk70bjc5DkPQTNkEr1uQgbhuZFQNDrvk9");
}

TEST(AccountHash, EachCachingSha2HasASaltOfItsOwn) {
  const std::string one = account_hash(AccountHash::caching_sha2, Secret("x"));
  const std::string two = account_hash(AccountHash::caching_sha2, Secret("x"));
  EXPECT_NE(one, two);
  EXPECT_EQ(one.size(), 7U + 20U + 43U);
  EXPECT_EQ(one.substr(0, 7), "$A$005$");
  EXPECT_EQ(one.substr(7, 20).find('$'), std::string::npos);
}

TEST(AccountHash, LongAndEmptyPasswordsHaveHashes) {
  EXPECT_EQ(caching_sha2_hash(Secret(""), "01234567890123456789").size(), 70U);
  EXPECT_EQ(caching_sha2_hash(Secret(std::string(300, 'p')), "01234567890123456789").size(), 70U);
}

}  // namespace
}  // namespace guestagent::mysql

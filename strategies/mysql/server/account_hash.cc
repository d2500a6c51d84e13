#include "strategies/mysql/server/account_hash.h"

#include <openssl/evp.h>

#include <array>
#include <memory>
#include <vector>

#include "base/error.h"

namespace guestagent::mysql {
namespace {

using Digest = std::vector<unsigned char>;

// An incremental digest; OpenSSL fails here only when it cannot allocate or the algorithm is forbidden.
class Evp {
 public:
  explicit Evp(const EVP_MD* kind) : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    check(context_ && EVP_DigestInit_ex(context_.get(), kind, nullptr) == 1);
  }
  Evp& add(const void* data, std::size_t size) {
    check(EVP_DigestUpdate(context_.get(), data, size) == 1);
    return *this;
  }
  Evp& add(std::string_view text) { return add(text.data(), text.size()); }
  Evp& add(const Digest& digest) { return add(digest.data(), digest.size()); }
  // `size` bytes of `digest`, again and again.
  Evp& add_cycle(const Digest& digest, std::size_t size) {
    for (; size > digest.size(); size -= digest.size()) add(digest);
    return add(digest.data(), size);
  }
  Digest end() {
    Digest out(EVP_MAX_MD_SIZE);
    unsigned size = 0;
    check(EVP_DigestFinal_ex(context_.get(), out.data(), &size) == 1);
    out.resize(size);
    return out;
  }

 private:
  static void check(bool good) {
    if (!good) throw Error(Code::internal, "hashing a password: the digest is not available in OpenSSL");
  }
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

constexpr std::string_view kCryptAlphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

void append_base64(std::string& out, unsigned b2, unsigned b1, unsigned b0, int n) {
  unsigned w = (b2 << 16) | (b1 << 8) | b0;
  for (; n > 0; --n, w >>= 6) out += kCryptAlphabet[w & 63];
}

}  // namespace

std::string native_password_hash(const Secret& password) {
  const Digest once = Evp(EVP_sha1()).add(password.reveal()).end();
  const Digest twice = Evp(EVP_sha1()).add(once).end();
  std::string out = "*";
  for (const unsigned char byte : twice) {
    out += "0123456789ABCDEF"[byte >> 4];
    out += "0123456789ABCDEF"[byte & 15];
  }
  return out;
}

// SHA-crypt (Drepper's "Unix crypt using SHA-256"), with the salt of 20 characters that MySQL takes instead
// of at most 16.
std::string caching_sha2_hash(const Secret& password, std::string_view salt) {
  const std::string& key = password.reveal();
  const Digest alternate = Evp(EVP_sha256()).add(key).add(salt).add(key).end();
  Evp first(EVP_sha256());
  first.add(key).add(salt).add_cycle(alternate, key.size());
  for (std::size_t n = key.size(); n > 0; n >>= 1) {
    if ((n & 1) != 0) {
      first.add(alternate);
    } else {
      first.add(key);
    }
  }
  Digest digest = first.end();

  Evp keys(EVP_sha256());
  for (std::size_t i = 0; i < key.size(); ++i) keys.add(key);
  const Digest key_digest = keys.end();
  Evp salts(EVP_sha256());
  for (unsigned i = 0; i < 16U + digest[0]; ++i) salts.add(salt);
  const Digest salt_digest = salts.end();

  for (int round = 0; round < 5000; ++round) {
    Evp next(EVP_sha256());
    if ((round & 1) != 0) {
      next.add_cycle(key_digest, key.size());
    } else {
      next.add(digest);
    }
    if (round % 3 != 0) next.add_cycle(salt_digest, salt.size());
    if (round % 7 != 0) next.add_cycle(key_digest, key.size());
    if ((round & 1) != 0) {
      next.add(digest);
    } else {
      next.add_cycle(key_digest, key.size());
    }
    digest = next.end();
  }

  std::string out = "$A$005$" + std::string(salt);
  static constexpr std::array<std::array<int, 3>, 10> kOrder = {{{0, 10, 20},
                                                                 {21, 1, 11},
                                                                 {12, 22, 2},
                                                                 {3, 13, 23},
                                                                 {24, 4, 14},
                                                                 {15, 25, 5},
                                                                 {6, 16, 26},
                                                                 {27, 7, 17},
                                                                 {18, 28, 8},
                                                                 {9, 19, 29}}};
  for (const auto& [a, b, c] : kOrder) append_base64(out, digest[a], digest[b], digest[c], 4);
  append_base64(out, 0, digest[31], digest[30], 3);
  return out;
}

std::string account_hash(AccountHash kind, const Secret& password) {
  if (kind == AccountHash::native) return native_password_hash(password);
  return caching_sha2_hash(password, random_password(20).reveal());
}

}  // namespace guestagent::mysql

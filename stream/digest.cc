#include "stream/digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <xxhash.h>

#include <cstring>
#include <span>
#include <utility>

#include "base/error.h"

namespace guestagent {
namespace {

[[noreturn]] void digest_failed(const char* what) {
  throw Error(Code::internal, std::string("computing a digest: OpenSSL: ") + what);
}

const unsigned char* octets_of(Bytes data) {
  return reinterpret_cast<const unsigned char*>(data.data());
}

std::string hash_all(Hash kind, const Buffer& data) {
  Hasher hasher(kind);
  for (const Bytes chunk : data.chunks()) hasher.update(chunk);
  return hasher.hex();
}

}  // namespace

std::string to_hex(Bytes data) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(data.size() * 2);
  for (const std::byte b : data) {
    hex += kDigits[std::to_integer<unsigned>(b) >> 4];
    hex += kDigits[std::to_integer<unsigned>(b) & 15];
  }
  return hex;
}

struct Hasher::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Hasher::Hasher(Hash kind) : state_(std::make_unique<State>()) {
  const EVP_MD* const algorithm = kind == Hash::sha256 ? EVP_sha256() : EVP_md5();
  if (state_->context == nullptr || EVP_DigestInit_ex(state_->context, algorithm, nullptr) != 1)
    digest_failed("digest init");
}

Hasher::Hasher(Hasher&&) noexcept = default;
Hasher::~Hasher() = default;

void Hasher::update(Bytes data) {
  if (EVP_DigestUpdate(state_->context, data.data(), data.size()) != 1) digest_failed("digest update");
}

std::string Hasher::hex() {
  std::array<std::byte, EVP_MAX_MD_SIZE> digest;
  unsigned length = 0;
  if (EVP_DigestFinal_ex(state_->context, reinterpret_cast<unsigned char*>(digest.data()), &length) != 1) {
    digest_failed("digest final");
  }
  return to_hex(Bytes(digest.data(), length));
}

std::string sha256_hex(Bytes data) {
  Hasher hasher(Hash::sha256);
  hasher.update(data);
  return hasher.hex();
}

std::string sha256_hex(const Buffer& data) {
  return hash_all(Hash::sha256, data);
}
std::string md5_hex(const Buffer& data) {
  return hash_all(Hash::md5, data);
}

std::string xxh3_hex(const Buffer& data) {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(), XXH3_freeState);
  if (state == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(state.get());
  for (const Bytes chunk : data.chunks()) XXH3_128bits_update(state.get(), chunk.data(), chunk.size());
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state.get()));
  return to_hex(std::as_bytes(std::span(canonical.digest)));
}

std::string hmac_sha256_hex(const Key& key, Bytes data) {
  std::array<std::byte, EVP_MAX_MD_SIZE> mac;
  unsigned length = 0;
  if (HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), octets_of(data), data.size(),
           reinterpret_cast<unsigned char*>(mac.data()), &length) == nullptr) {
    digest_failed("HMAC");
  }
  return to_hex(Bytes(mac.data(), length));
}

Key hkdf_sha256(const Key& key, std::string_view info) {
  const std::unique_ptr<EVP_PKEY_CTX, void (*)(EVP_PKEY_CTX*)> context(EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nullptr),
                                                                       EVP_PKEY_CTX_free);
  Key derived;
  std::size_t length = derived.size();
  if (context == nullptr || EVP_PKEY_derive_init(context.get()) != 1 ||
      EVP_PKEY_CTX_set_hkdf_md(context.get(), EVP_sha256()) != 1 ||
      EVP_PKEY_CTX_set1_hkdf_key(context.get(), octets_of(key), static_cast<int>(key.size())) != 1 ||
      EVP_PKEY_CTX_add1_hkdf_info(context.get(), octets_of(as_bytes(info)), static_cast<int>(info.size())) != 1 ||
      EVP_PKEY_derive(context.get(), reinterpret_cast<unsigned char*>(derived.data()), &length) != 1 ||
      length != derived.size()) {
    digest_failed("HKDF");
  }
  return derived;
}

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace guestagent

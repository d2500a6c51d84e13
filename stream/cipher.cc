#include "stream/cipher.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>

#include "base/error.h"

namespace guestagent {
namespace {

constexpr std::size_t kNonceBytes = 12;
constexpr std::size_t kTagBytes = 16;
static_assert(kNonceBytes + kTagBytes == kCipherOverhead);

using Context = std::unique_ptr<EVP_CIPHER_CTX, void (*)(EVP_CIPHER_CTX*)>;
using Nonce = std::array<unsigned char, kNonceBytes>;
using Tag = std::array<unsigned char, kTagBytes>;

[[noreturn]] void failed(const char* what) {
  throw Error(Code::internal, std::string("AES-256-GCM: OpenSSL: ") + what);
}

Context new_context() {
  Context context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  if (context == nullptr) throw std::bad_alloc();
  return context;
}

const unsigned char* octets(Bytes data) {
  return reinterpret_cast<const unsigned char*>(data.data());
}
unsigned char* octets(std::span<std::byte> data) {
  return reinterpret_cast<unsigned char*>(data.data());
}

// GCM is a stream: n bytes in are n bytes out.
template <typename Update>
void transform(Bytes in, Buffer& out, Update update) {
  while (!in.empty()) {
    const std::span<std::byte> room = out.room();
    const std::size_t n = std::min(room.size(), in.size());
    int produced = 0;
    if (update(octets(room), &produced, octets(in), static_cast<int>(n)) != 1 || produced != static_cast<int>(n)) {
      failed("update");
    }
    out.commit(n);
    in = in.subspan(n);
  }
}

}  // namespace

Buffer encrypt(const Key& key, std::string_view context, Buffer plain) {
  Nonce nonce;
  if (RAND_bytes(nonce.data(), static_cast<int>(nonce.size())) != 1) failed("random bytes");
  const Context gcm = new_context();
  int ignored = 0;
  if (EVP_EncryptInit_ex(gcm.get(), EVP_aes_256_gcm(), nullptr, octets(Bytes(key)), nonce.data()) != 1 ||
      EVP_EncryptUpdate(gcm.get(), nullptr, &ignored, octets(as_bytes(context)), static_cast<int>(context.size())) !=
          1) {
    failed("init");
  }
  Buffer stored;
  stored.append(std::as_bytes(std::span(nonce)));
  while (!plain.empty()) {
    const Buffer part = plain.pop_front();
    transform(part.chunks().front(), stored, [&](unsigned char* out, int* n, const unsigned char* in, int size) {
      return EVP_EncryptUpdate(gcm.get(), out, n, in, size);
    });
  }
  Tag tag;
  if (EVP_EncryptFinal_ex(gcm.get(), tag.data(), &ignored) != 1 ||
      EVP_CIPHER_CTX_ctrl(gcm.get(), EVP_CTRL_GCM_GET_TAG, static_cast<int>(tag.size()), tag.data()) != 1) {
    failed("final");
  }
  stored.append(std::as_bytes(std::span(tag)));
  return stored;
}

Buffer decrypt(const Key& key, std::string_view context, Buffer stored) {
  if (stored.size() < kCipherOverhead) throw Error(Code::data_loss, "decrypting: shorter than its nonce and tag");
  const std::uint64_t tag_at = stored.size() - kTagBytes;
  const Context gcm = new_context();
  Nonce nonce;
  Tag tag;
  Buffer plain;
  std::uint64_t position = 0;
  // Nonce and tag may lie across chunks, wherever those end.
  while (!stored.empty()) {
    const Buffer part = stored.pop_front();
    Bytes in = part.chunks().front();
    while (!in.empty()) {
      const std::uint64_t end = position < kNonceBytes ? kNonceBytes : position < tag_at ? tag_at : tag_at + kTagBytes;
      const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(in.size(), end - position));
      if (position < kNonceBytes) {
        std::memcpy(nonce.data() + position, in.data(), n);
        int ignored = 0;
        if (position + n == kNonceBytes &&
            (EVP_DecryptInit_ex(gcm.get(), EVP_aes_256_gcm(), nullptr, octets(Bytes(key)), nonce.data()) != 1 ||
             EVP_DecryptUpdate(gcm.get(), nullptr, &ignored, octets(as_bytes(context)),
                               static_cast<int>(context.size())) != 1)) {
          failed("init");
        }
      } else if (position < tag_at) {
        transform(in.first(n), plain, [&](unsigned char* out, int* made, const unsigned char* from, int size) {
          return EVP_DecryptUpdate(gcm.get(), out, made, from, size);
        });
      } else {
        std::memcpy(tag.data() + (position - tag_at), in.data(), n);
      }
      position += n;
      in = in.subspan(n);
    }
  }
  unsigned char nothing[kTagBytes];
  int ignored = 0;
  if (EVP_CIPHER_CTX_ctrl(gcm.get(), EVP_CTRL_GCM_SET_TAG, static_cast<int>(tag.size()), tag.data()) != 1)
    failed("tag");
  if (EVP_DecryptFinal_ex(gcm.get(), nothing, &ignored) != 1) {
    throw Error(Code::data_loss,
                "decrypting: its authentication tag is wrong: altered, of another snapshot or place, or another key");
  }
  return plain;
}

}  // namespace guestagent

#include "net/client_files.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <memory>

#include "base/error.h"

namespace guestagent {

void check_client_files(const fs::path& ca_file, const fs::path& certificate, const fs::path& key) {
  if (ca_file.empty() && certificate.empty()) return;
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  const auto must = [](int done, const fs::path& file, const std::string& otherwise) {
    if (done == 1) return;
    const auto code = ERR_peek_last_error();
    const char* why = code == 0 ? nullptr : ERR_reason_error_string(code);
    ERR_clear_error();
    throw Error(Code::invalid_argument,
                "reading TLS files: " + file.string() + ": " + otherwise + (why == nullptr ? "it cannot be read" : why),
                "it must be a readable PEM file");
  };
  SSL_CTX* c = context.get();
  if (c == nullptr) throw std::bad_alloc();
  if (!ca_file.empty()) must(SSL_CTX_load_verify_locations(c, ca_file.c_str(), nullptr), ca_file, "");
  if (certificate.empty()) return;
  must(SSL_CTX_use_certificate_chain_file(c, certificate.c_str()), certificate, "");
  must(SSL_CTX_use_PrivateKey_file(c, key.c_str(), SSL_FILETYPE_PEM), key, "");
  must(SSL_CTX_check_private_key(c), key, "not the key of " + certificate.string() + ": ");
}

}  // namespace guestagent

#include "net/client_crl.h"

#include <openssl/err.h>
#include <openssl/x509_vfy.h>

#include "base/error.h"

namespace guestagent {

void use_client_crl(X509_STORE* store, const fs::path& file) {
  X509_LOOKUP* lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
  if (lookup == nullptr || X509_load_crl_file(lookup, file.c_str(), X509_FILETYPE_PEM) < 1) {
    const auto code = ERR_peek_last_error();
    const char* why = code == 0 ? nullptr : ERR_reason_error_string(code);
    ERR_clear_error();
    throw Error(Code::invalid_argument,
                "reading TLS files: " + file.string() + ": " + (why == nullptr ? "no list in it" : why),
                "client_crl must be a readable PEM file with a certificate revocation list of each client CA");
  }
  X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
}

}  // namespace guestagent

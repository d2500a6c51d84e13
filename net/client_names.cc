#include "net/client_names.h"

#include <openssl/x509v3.h>

namespace guestagent {

std::vector<std::string> client_names(const X509* certificate) {
  std::vector<std::string> names;
  const auto add = [&](const ASN1_STRING* text) {
    unsigned char* utf8 = nullptr;
    const int size = ASN1_STRING_to_UTF8(&utf8, text);
    if (size > 0) {
      std::string name(reinterpret_cast<char*>(utf8), static_cast<std::size_t>(size));
      if (name.find('\0') == std::string::npos) names.push_back(std::move(name));
    }
    OPENSSL_free(utf8);
  };
  const X509_NAME* subject = X509_get_subject_name(certificate);
  for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0;) {
    add(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  }
  auto* alternatives =
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(alternatives); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(alternatives, i);
    if (name->type == GEN_DNS) add(name->d.dNSName);
  }
  GENERAL_NAMES_free(alternatives);
  return names;
}

}  // namespace guestagent

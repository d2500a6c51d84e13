#include "net/client_names.h"

#include <gmock/gmock.h>
#include <openssl/x509v3.h>

#include <memory>

namespace guestagent {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

struct Name {
  bool is_dns;
  std::string text;
};

// A certificate that nobody signed: only its names are read.
std::vector<std::string> names_of_certificate(const std::vector<Name>& names) {
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  GENERAL_NAMES* others = GENERAL_NAMES_new();
  for (const Name& name : names) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(name.text.data());
    if (!name.is_dns) {
      EXPECT_EQ(X509_NAME_add_entry_by_NID(subject, NID_commonName, V_ASN1_UTF8STRING, bytes,
                                           static_cast<int>(name.text.size()), -1, 0),
                1);
      continue;
    }
    ASN1_IA5STRING* text = ASN1_IA5STRING_new();
    ASN1_STRING_set(text, bytes, static_cast<int>(name.text.size()));
    GENERAL_NAME* other = GENERAL_NAME_new();
    GENERAL_NAME_set0_value(other, GEN_DNS, text);
    sk_GENERAL_NAME_push(others, other);
  }
  if (sk_GENERAL_NAME_num(others) > 0) X509_add1_ext_i2d(certificate.get(), NID_subject_alt_name, others, 0, 0);
  GENERAL_NAMES_free(others);
  return client_names(certificate.get());
}

TEST(ClientNames, CommonAndDnsNamesEachWhole) {
  const std::string zero("\0", 1);
  const std::string longest(300, 'a');
  EXPECT_THAT(names_of_certificate({}), IsEmpty());
  EXPECT_THAT(names_of_certificate({{false, "controller"}}), ElementsAre("controller"));
  EXPECT_THAT(names_of_certificate({{false, "a"}, {false, "b"}, {true, "c.example"}}),
              ElementsAre("a", "b", "c.example"));
  EXPECT_THAT(names_of_certificate({{false, longest + ".example"}}), ElementsAre(longest + ".example"));
  EXPECT_THAT(names_of_certificate({{true, longest}}), ElementsAre(longest));
  // To a reader in C these are "controller".
  EXPECT_THAT(names_of_certificate({{false, "controller" + zero}}), IsEmpty());
  EXPECT_THAT(names_of_certificate({{false, "controller" + zero + ".evil.example"}}), IsEmpty());
  EXPECT_THAT(names_of_certificate({{true, "controller" + zero + ".evil.example"}, {true, "b"}}), ElementsAre("b"));
  EXPECT_THAT(names_of_certificate({{false, ""}, {true, ""}}), IsEmpty());
}

}  // namespace
}  // namespace guestagent

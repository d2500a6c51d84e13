#include "net/http_tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "net/client_crl.h"
#include "net/client_names.h"

namespace guestagent {
namespace {

std::string last_tls_error() {
  char text[256] = "unknown";
  if (const unsigned long code = ERR_peek_last_error()) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return text;
}

std::shared_ptr<SSL_CTX> make_server_context(const HttpTls& settings) {
  const std::shared_ptr<SSL_CTX> owned(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (!owned) throw Error(Code::internal, "prepare TLS: " + last_tls_error());
  SSL_CTX* context = owned.get();
  const auto fail = [&](const std::string& key, const fs::path& file) {
    return Error(Code::invalid_argument, settings.section + "." + key + ": " + file.string() + ": " + last_tls_error(),
                 "it must be a readable PEM file");
  };
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_mode(context,
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_COMPRESSION);
  if (SSL_CTX_use_certificate_chain_file(context, settings.certificate.c_str()) != 1)
    throw fail("certificate", settings.certificate);
  if (SSL_CTX_use_PrivateKey_file(context, settings.key.c_str(), SSL_FILETYPE_PEM) != 1)
    throw fail("key", settings.key);
  // A session of a client that showed a certificate can be taken up again only in a context that has a name. A reload
  // makes another context, with other keys for tickets: sessions from before it begin anew, and their certificates are
  // looked at again.
  static constexpr unsigned char kSessions[] = "guestagent";
  SSL_CTX_set_session_id_context(context, kSessions, sizeof kSessions - 1);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);  // tickets only: they die with the context
  if (settings.client_ca.empty()) return owned;
  if (SSL_CTX_load_verify_locations(context, settings.client_ca.c_str(), nullptr) != 1)
    throw fail("client_ca", settings.client_ca);
  SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(settings.client_ca.c_str()));
  SSL_CTX_set_verify(context,
                     settings.certificate_needed ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_PEER,
                     nullptr);
  if (!settings.client_crl.empty()) {
    with_context(settings.section + ".client_crl",
                 [&] { use_client_crl(SSL_CTX_get_cert_store(context), settings.client_crl); });
  }
  return owned;
}

}  // namespace

ServerTls::ServerTls(const HttpTls& settings) : settings_(settings) {
  if (on()) context_ = make_server_context(settings_);
}

void ServerTls::reload() {
  if (!on()) return;
  std::shared_ptr<SSL_CTX> fresh = make_server_context(settings_);
  const std::lock_guard lock(mutex_);
  context_ = std::move(fresh);
  ++generation_;
}

std::shared_ptr<SSL_CTX> ServerTls::context(unsigned& generation) const {
  const std::lock_guard lock(mutex_);
  generation = generation_;
  return context_;
}

std::optional<std::string> ServerTls::client_name(SSL* connection) const {
  if (settings_.client_ca.empty()) return std::nullopt;
  const std::shared_ptr<X509> certificate(SSL_get1_peer_certificate(connection), X509_free);
  if (!certificate) return std::nullopt;
  const std::vector<std::string> names = client_names(certificate.get());
  const std::vector<std::string>& allowed = settings_.allow_names;
  if (allowed.empty()) return names.empty() ? std::string("without a name") : names[0];
  const auto found = std::find_first_of(names.begin(), names.end(), allowed.begin(), allowed.end());
  if (found != names.end()) return *found;
  log_warning("a TLS client's certificate has none of the allowed names",
              {{"name", names.empty() ? "" : printable(names.front())}});
  return std::nullopt;
}

}  // namespace guestagent

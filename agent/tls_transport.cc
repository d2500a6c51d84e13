#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>

#include <algorithm>
#include <functional>

#include "agent/transport.h"
#include "agent/transport_wait.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"

namespace guestagent {
namespace {

std::string last_tls_error() {
  char text[256] = "unknown";
  if (const unsigned long code = ERR_peek_last_error()) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return text;
}

std::vector<std::string> names_of(X509* certificate) {
  std::vector<std::string> names;
  const auto add = [&](const ASN1_STRING* text) {
    unsigned char* utf8 = nullptr;
    const int size = ASN1_STRING_to_UTF8(&utf8, text);
    if (size >= 0) names.emplace_back(reinterpret_cast<char*>(utf8), static_cast<std::size_t>(size));
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

}  // namespace

struct TlsContext::State {
  SSL_CTX* context = nullptr;
  std::vector<std::string> allow_names;
  ~State() { SSL_CTX_free(context); }
  bool allows(SSL* connection) const;
};

bool TlsContext::State::allows(SSL* connection) const {
  if (allow_names.empty()) return true;
  X509* certificate = SSL_get1_peer_certificate(connection);
  if (!certificate) return false;
  const std::vector<std::string> names = names_of(certificate);
  X509_free(certificate);
  const bool allowed = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return std::find(allow_names.begin(), allow_names.end(), name) != allow_names.end();
  });
  if (!allowed) {
    log_warning("TLS client refused: its certificate has none of the allowed names",
                {{"name", names.empty() ? "" : printable(names.front())}});
  }
  return allowed;
}

namespace {

class TlsTransport final : public Transport {
 public:
  TlsTransport(UniqueFd fd, int wake_fd, SSL* connection, std::function<bool(SSL*)> allowed)
      : fd_(std::move(fd)), wake_fd_(wake_fd), connection_(connection), allowed_(std::move(allowed)) {
    SSL_set_fd(connection_, fd_.get());
    SSL_set_accept_state(connection_);
  }
  ~TlsTransport() override { SSL_free(connection_); }

  bool establish(End& end) override {
    if (known_) return true;
    std::size_t one = 1;
    if (move(end, wake_fd_, [&](std::size_t& n) { return n = one, SSL_do_handshake(connection_); }) == 0)
      return false;
    if (!allowed_(connection_)) return end = End::broken, false;
    return known_ = true;
  }
  std::size_t read(void* into, std::size_t size, End& end) override {
    if (!establish(end)) return 0;
    return move(end, wake_fd_, [&](std::size_t& n) { return SSL_read_ex(connection_, into, size, &n); });
  }
  std::size_t write(const void* from, std::size_t size, End& end) override {
    if (!establish(end)) return 0;
    return move(end, -1, [&](std::size_t& n) { return SSL_write_ex(connection_, from, size, &n); });
  }
  void finish() override {
    if (SSL_is_init_finished(connection_)) SSL_shutdown(connection_);
    ERR_clear_error();
    linger_and_close(fd_.release());
  }
  bool peer_gone() override { return peer_has_closed(fd_.get(), true); }

 private:
  template <typename F>
  std::size_t move(End& end, int wake_fd, F step) {
    for (;;) {
      std::size_t n = 0;
      ERR_clear_error();
      const int done = step(n);
      if (done == 1) return n;
      short wanted = POLLIN;
      switch (SSL_get_error(connection_, done)) {
        case SSL_ERROR_WANT_READ:
          break;
        case SSL_ERROR_WANT_WRITE:
          wanted = POLLOUT;
          break;
        case SSL_ERROR_ZERO_RETURN:
          return end = End::closed, 0;
        default:
          if (!known_) log_warning("TLS handshake failed", {{"error", last_tls_error()}});
          ERR_clear_error();
          return end = End::broken, 0;
      }
      if (const auto why = wait_ready(fd_.get(), wanted, wake_fd, deadline_)) return end = *why, 0;
    }
  }

  UniqueFd fd_;
  int wake_fd_;
  SSL* connection_;
  std::function<bool(SSL*)> allowed_;
  bool known_ = false;
};

}  // namespace

TlsContext::TlsContext(const TlsListenSettings& settings) : state_(std::make_shared<State>()) {
  state_->allow_names = settings.allow_names;
  state_->context = SSL_CTX_new(TLS_server_method());
  if (!state_->context) throw Error(Code::internal, "prepare TLS: " + last_tls_error());
  SSL_CTX* context = state_->context;
  const auto fail = [](const std::string& key, const fs::path& file) {
    return Error(Code::invalid_argument,
                 "agent.listen." + key + ": " + file.string() + ": " + last_tls_error(),
                 "it must be a PEM file that the agent can read");
  };
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  if (SSL_CTX_use_certificate_chain_file(context, settings.certificate.c_str()) != 1)
    throw fail("certificate", settings.certificate);
  if (SSL_CTX_use_PrivateKey_file(context, settings.key.c_str(), SSL_FILETYPE_PEM) != 1)
    throw fail("key", settings.key);
  if (SSL_CTX_load_verify_locations(context, settings.client_ca.c_str(), nullptr) != 1)
    throw fail("client_ca", settings.client_ca);
  SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(settings.client_ca.c_str()));
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  const unsigned char session_id[] = "guestagent";
  SSL_CTX_set_session_id_context(context, session_id, sizeof session_id - 1);
}

TlsContext::~TlsContext() = default;

std::unique_ptr<Transport> TlsContext::make_transport(UniqueFd fd, int wake_fd) {
  SSL* connection = SSL_new(state_->context);
  if (!connection) throw Error(Code::resource_exhausted, "accept a TLS connection: " + last_tls_error());
  ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
  return std::make_unique<TlsTransport>(std::move(fd), wake_fd, connection,
                                        [state = state_](SSL* c) { return state->allows(c); });
}

}  // namespace guestagent

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

#include "agent/transport.h"
#include "agent/transport_wait.h"
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

}  // namespace

struct TlsContext::State {
  const TlsListenSettings settings;
  std::mutex mutex;
  std::shared_ptr<SSL_CTX> context;     // replaced as a whole; guarded by the mutex
  std::atomic<unsigned> generation{0};  // of the files
  explicit State(TlsListenSettings s) : settings(std::move(s)) {}
  bool allows(SSL* connection) const;
};

bool TlsContext::State::allows(SSL* connection) const {
  const std::vector<std::string>& allow_names = settings.allow_names;
  if (allow_names.empty()) return true;
  X509* certificate = SSL_get1_peer_certificate(connection);
  if (!certificate) return false;
  const std::vector<std::string> names = client_names(certificate);
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
  // `outdated`: the files that the handshake was judged by have been read anew since.
  TlsTransport(UniqueFd fd, int wake_fd, SSL* connection, std::function<bool(SSL*)> allowed,
               std::function<bool()> outdated)
      : fd_(std::move(fd)),
        wake_fd_(wake_fd),
        connection_(connection),
        allowed_(std::move(allowed)),
        outdated_(std::move(outdated)) {
    SSL_set_fd(connection_, fd_.get());
    SSL_set_accept_state(connection_);
  }
  ~TlsTransport() override { SSL_free(connection_); }

  bool establish(End& end) override {
    if (known_) return true;
    std::size_t one = 1;
    if (move(end, wake_fd_, [&](std::size_t& n) { return n = one, SSL_do_handshake(connection_); }) == 0) return false;
    if (!allowed_(connection_)) return end = End::broken, false;
    return known_ = true;
  }
  std::size_t read(void* into, std::size_t size, End& end) override {
    if (!establish(end)) return 0;
    const std::size_t got =
        move(end, wake_fd_, [&](std::size_t& n) { return SSL_read_ex(connection_, into, size, &n); });
    // Asked after the wait, in which the files may have been read anew: what came is from a certificate that may be
    // revoked by now.
    if (outdated_()) return end = End::closed, 0;
    return got;
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
  std::function<bool()> outdated_;
  bool known_ = false;
};

}  // namespace

namespace {

std::shared_ptr<SSL_CTX> make_tls_context(const TlsListenSettings& settings) {
  const std::shared_ptr<SSL_CTX> owned(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (!owned) throw Error(Code::internal, "prepare TLS: " + last_tls_error());
  SSL_CTX* context = owned.get();
  const auto fail = [](const std::string& key, const fs::path& file) {
    return Error(Code::invalid_argument, "agent.listen." + key + ": " + file.string() + ": " + last_tls_error(),
                 "it must be a PEM file that the agent can read");
  };
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_mode(context,
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
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
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);  // tickets only: they die with the context, at a reload
  if (!settings.client_crl.empty()) {
    with_context("agent.listen.client_crl",
                 [&] { use_client_crl(SSL_CTX_get_cert_store(context), settings.client_crl); });
  }
  return owned;
}

}  // namespace

TlsContext::TlsContext(const TlsListenSettings& settings) : state_(std::make_shared<State>(settings)) {
  state_->context = make_tls_context(settings);
}

void TlsContext::reload() {
  std::shared_ptr<SSL_CTX> fresh = make_tls_context(state_->settings);
  const std::lock_guard lock(state_->mutex);
  state_->context = std::move(fresh);
  ++state_->generation;
}

TlsContext::~TlsContext() = default;

std::unique_ptr<Transport> TlsContext::make_transport(UniqueFd fd, int wake_fd) {
  const unsigned generation = state_->generation;
  SSL* connection = nullptr;
  {
    const std::lock_guard lock(state_->mutex);
    connection = SSL_new(state_->context.get());
  }
  if (!connection) throw Error(Code::resource_exhausted, "accept a TLS connection: " + last_tls_error());
  ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
  return std::make_unique<TlsTransport>(
      std::move(fd), wake_fd, connection, [state = state_](SSL* c) { return state->allows(c); },
      [state = state_, generation] { return state->generation != generation; });
}

}  // namespace guestagent

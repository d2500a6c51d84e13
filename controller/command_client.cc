#include "controller/command_client.h"

#include <cstdlib>

#include "base/clock.h"
#include "base/host_name.h"
#include "base/text.h"
#include "config/controller_settings.h"
#include "net/client_files.h"

namespace guestagent::controller {
namespace {

constexpr Millis kTimeout{60000};
constexpr std::uint64_t kMaxControllerAnswer = std::uint64_t{16} << 20;
constexpr int kSends = 5;
constexpr Millis kBetweenSends{1000};

Code code_of_status(int status) {
  switch (status) {
    case 400:
    case 405:
    case 413:
      return Code::invalid_argument;
    case 401:
    case 403:
      return Code::permission_denied;
    case 404:
      return Code::not_found;
    case 409:
      return Code::failed_precondition;
    case 501:
      return Code::unimplemented;
    case 503:
      return Code::unavailable;
    default:
      return Code::internal;
  }
}

// {"badRequest": {"code": 400, "message": …, "hint": …}}
Error api_error(int status, const std::string& body) {
  std::string message = "the controller answers " + std::to_string(status), hint;
  try {
    const JsonDocument document = parse_json(body, "answer");
    if (document.IsObject() && document.MemberCount() == 1) {
      const JsonReader fault(document.MemberBegin()->value, "answer");
      message = fault.string("message");
      hint = fault.opt_string("hint").value_or("");
    }
  } catch (const Error&) {
    message += ": " + printable(body, 200);  // not ours, so as it is
  }
  return Error(code_of_status(status), message, hint);
}

// The token of the local configuration, where the URL is that of the controller which it configures; nobody else is
// sent it.
fs::path token_of(const HttpAddress& address, const fs::path& config) {
  std::error_code ignored;
  if (address.kind == HttpAddress::Kind::unix_socket || !fs::exists(config, ignored)) return {};
  ControllerSettings settings;
  try {
    settings = load_controller_settings(config);
  } catch (const Error&) {
    return {};  // of another controller's URL it would say nothing anyway
  }
  if (settings.listen.empty()) return {};
  const ListenAddress listen = parse_listen_address(settings.listen);
  const auto host = HostName::parse(address.host);
  const bool same_host = address.host == listen.host || (listen.loopback() && host && host->is_loopback());
  return same_host && address.port == std::to_string(listen.port) ? settings.token_file : fs::path();
}

}  // namespace

CommandClient::CommandClient(const ClientOptions& options) {
  ClientOptions use = options;
  const char* environment = std::getenv("GUESTAGENT_CONTROLLER");
  if (use.url.empty() && use.config.empty() && environment != nullptr) use.url = environment;
  const fs::path config = use.config.empty() ? fs::path(kControllerConfig) : use.config;
  if (use.url.empty()) {
    ControllerSettings settings;
    std::error_code ignored;
    // Without the file, the controller's defaults are its client's.
    if (!use.config.empty() || fs::exists(config, ignored)) settings = load_controller_settings(config);
    use.url = "unix:" + settings.socket.string();
  }
  address_ = HttpAddress::parse(use.url);
  if (use.token_file.empty() && use.certificate.empty()) use.token_file = token_of(address_, config);
  if (!use.token_file.empty()) token_ = secret_from_file(use.token_file.string());
  check_client_files(use.ca_file, use.certificate, use.key);
  HttpClientOptions http;
  http.connect_timeout = kTimeout;
  http.stall = Millis(0);
  http.ca_file = use.ca_file;
  http.certificate = use.certificate;
  http.key = use.key;
  http.hints.ca = http.hints.certificate;
  http_.emplace(std::move(http));
}

std::string CommandClient::ask(const std::string& method, const std::string& target, const std::string& body,
                               const std::string& key) {
  HttpRequest request = address_.request("asking the controller", method, target);
  const Buffer sent = Buffer::from(body);
  if (!body.empty()) {
    request.body = &sent;
    request.headers.emplace_back("Content-Type", "application/json");
  }
  request.max_answer = kMaxControllerAnswer;
  request.timeout = kTimeout;
  request.headers.emplace_back("Accept", "application/json");
  if (!token_.empty()) request.headers.emplace_back("Authorization", "Bearer " + token_.reveal());
  if (!key.empty()) request.headers.emplace_back("Idempotency-Key", key);
  HttpResponse answer;
  try {
    answer = http_->send(request, {});
  } catch (const HttpError& e) {
    if (e.code() != Code::unavailable && e.code() != Code::deadline_exceeded) throw;
    throw Error(e.code(), e.what(), "is it running (guestagent controller)? --controller URL names another one");
  }
  if (answer.status >= 300) throw api_error(answer.status, answer.body.text());
  return answer.body.text();
}

std::string CommandClient::get(const std::string& target) {
  return ask("GET", target, "", "");
}

std::string CommandClient::post(const std::string& target, const std::string& body) {
  return ask_again("POST", target, body);
}

void CommandClient::remove(const std::string& target) {
  ask_again("DELETE", target, "");
}

std::string CommandClient::ask_again(const std::string& method, const std::string& target, const std::string& body) {
  const std::string key = random_hex(16);
  for (int n = 1;; ++n) {
    try {
      return ask(method, target, body, key);
    } catch (const Error& e) {
      if (e.code() != Code::unavailable || n == kSends) throw;
    }
    system_clock().sleep(kBetweenSends, {});
  }
}

std::string path_segment(const std::string& text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
        c == '.') {
      out += c;
    } else {
      out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return out;
}

}  // namespace guestagent::controller

#include "net/http_message.h"

#include <boost/beast/http/field.hpp>

namespace guestagent {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string decode_target(std::string_view text, bool plus_is_space) {
  std::string out;
  for (std::size_t n = 0; n < text.size(); ++n) {
    if (text[n] == '%' && n + 2 < text.size() && hex_value(text[n + 1]) >= 0 && hex_value(text[n + 2]) >= 0) {
      out += static_cast<char>(hex_value(text[n + 1]) * 16 + hex_value(text[n + 2]));
      n += 2;
    } else {
      out += plus_is_space && text[n] == '+' ? ' ' : text[n];
    }
  }
  return out;
}

// "/path?query", or a proxy's "http://host/path?query".
void read_target(std::string_view target, ReceivedRequest& out) {
  constexpr std::string_view kProxys = "http://";
  if (target.starts_with(kProxys)) target.remove_prefix(std::min(target.find('/', kProxys.size()), target.size()));
  const std::size_t mark = target.find('?');
  out.path = decode_target(target.substr(0, mark), false);
  if (mark == std::string_view::npos) return;
  std::string_view rest = target.substr(mark + 1);
  while (!rest.empty()) {
    const std::size_t end = rest.find('&');
    const std::string_view pair = rest.substr(0, end);
    const std::size_t equals = pair.find('=');
    out.query.emplace_back(decode_target(pair.substr(0, equals), true),
                           equals == std::string_view::npos ? "" : decode_target(pair.substr(equals + 1), true));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
}

std::string text_of(const beast::string_view view) {
  return {view.data(), view.size()};
}

// Fields of which a second one would mean something else to somebody else.
std::string field_not_once(const http::request<http::string_body>& in) {
  if (in.count(http::field::host) != 1) return "Host";
  for (const http::field field : {http::field::origin, http::field::authorization}) {
    if (in.count(field) > 1) return std::string(http::to_string(field));
  }
  return in.count("Idempotency-Key") > 1 ? "Idempotency-Key" : "";
}

}  // namespace

ReceivedRequest read_message(http::request<http::string_body> message) {
  ReceivedRequest out;
  out.method = text_of(message.method_string());
  read_target({message.target().data(), message.target().size()}, out);
  out.host = text_of(message[http::field::host]);
  out.authorization = text_of(message[http::field::authorization]);
  out.accept = text_of(message[http::field::accept]);
  out.idempotency_key = text_of(message["Idempotency-Key"]);
  out.last_event_id = text_of(message["Last-Event-ID"]);
  if (const auto origin = message.find(http::field::origin); origin != message.end())
    out.origin = text_of(origin->value());
  out.not_once = field_not_once(message);
  out.body = std::move(message.body());
  return out;
}

}  // namespace guestagent

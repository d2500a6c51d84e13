#include "base/host_name.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>

#include "base/error.h"
#include "base/text.h"

namespace guestagent {
namespace {

constexpr std::size_t kMaxName = 253;  // RFC 1035, 2.3.4: 255 bytes on the wire
constexpr std::size_t kMaxLabel = 63;
constexpr std::size_t kMaxZone = 15;  // IFNAMSIZ without its zero

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_word(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

bool is_label(std::string_view label) {
  return !label.empty() && label.size() <= kMaxLabel && label.front() != '-' && label.back() != '-' &&
         std::all_of(label.begin(), label.end(), is_word);
}

// What inet_aton() would read as a number: "127.1", "0x7f.1". Resolvers take such for an address.
bool ends_in_number(std::string_view text) {
  if (text.ends_with('.')) text.remove_suffix(1);
  const std::string_view last = text.substr(text.rfind('.') + 1);
  if (last.starts_with("0x") || last.starts_with("0X")) {
    return std::all_of(last.begin() + 2, last.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
  }
  return !last.empty() && std::all_of(last.begin(), last.end(), is_digit);
}

bool is_name(std::string_view text) {
  if (text.size() > kMaxName) return false;
  if (text.ends_with('.')) text.remove_suffix(1);
  while (true) {
    const std::size_t dot = text.find('.');
    if (!is_label(text.substr(0, dot))) return false;
    if (dot == std::string_view::npos) return true;
    text.remove_prefix(dot + 1);
  }
}

bool is_zone(std::string_view zone) {
  return !zone.empty() && zone.size() <= kMaxZone &&
         std::all_of(zone.begin(), zone.end(), [](char c) { return is_word(c) || c == '.'; });
}

std::optional<in6_addr> ipv6(std::string_view text) {
  in6_addr out{};
  return inet_pton(AF_INET6, std::string(text).c_str(), &out) == 1 ? std::optional(out) : std::nullopt;
}

bool is_ipv6_text(std::string_view text) {
  const std::size_t percent = text.find('%');
  if (percent != std::string_view::npos && !is_zone(text.substr(percent + 1))) return false;
  return ipv6(text.substr(0, percent)).has_value();
}

bool is_ipv4_text(std::string_view text) {
  in_addr ignored{};
  return inet_pton(AF_INET, std::string(text).c_str(), &ignored) == 1;
}

}  // namespace

std::optional<HostName> HostName::parse(std::string_view text) {
  if (text.empty() || text.size() > kMaxName + 1 || text.find('\0') != std::string_view::npos) return std::nullopt;
  if (text.find(':') != std::string_view::npos) {
    return is_ipv6_text(text) ? std::optional(HostName(Kind::ipv6, text)) : std::nullopt;
  }
  if (ends_in_number(text)) {
    return is_ipv4_text(text) ? std::optional(HostName(Kind::ipv4, text)) : std::nullopt;
  }
  return is_name(text) ? std::optional(HostName(Kind::name, text)) : std::nullopt;
}

HostName HostName::require(std::string_view what, std::string_view text) {
  if (auto host = parse(text)) return *host;
  throw Error(Code::invalid_argument,
              std::string(what) + ": \"" + printable(text) + "\" is neither a host name nor an address",
              "a host name is of letters, digits, \"-\", \"_\" and dots; an address such as 192.0.2.7 or 2001:db8::7");
}

bool HostName::is_loopback() const {
  if (kind_ == Kind::name) return text_ == "localhost";
  if (kind_ == Kind::ipv4) return text_.starts_with("127.");
  const auto address = ipv6(std::string_view(text_).substr(0, text_.find('%')));
  return IN6_IS_ADDR_LOOPBACK(&*address) || (IN6_IS_ADDR_V4MAPPED(&*address) && address->s6_addr[12] == 127);
}

std::string HostName::in_url() const {
  return is_ipv6() ? "[" + text_ + "]" : text_;
}

std::optional<HostPort> HostPort::parse(std::string_view text) {
  std::string_view host = text, port;
  bool has_port = false;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    host = text.substr(1, end - 1);
    const std::string_view rest = text.substr(end + 1);
    if (host.find(':') == std::string_view::npos) return std::nullopt;
    if (!rest.empty() && rest.front() != ':') return std::nullopt;
    has_port = !rest.empty();
    if (has_port) port = rest.substr(1);
  } else if (const std::size_t colon = text.find(':'); colon != std::string_view::npos) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    has_port = true;
  }
  const auto name = HostName::parse(host);
  if (!name) return std::nullopt;
  HostPort out{*name, std::nullopt};
  if (has_port) {
    std::uint16_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (port.empty() || error != std::errc() || end != port.data() + port.size() || number == 0) return std::nullopt;
    out.port = number;
  }
  return out;
}

}  // namespace guestagent

// Names and addresses of hosts, and nothing else: what comes from outside becomes one of these types at the entrance,
// so that no text with a meaning of its own (a connection string, an option, a line break) can travel on as "a host".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace guestagent {

// A DNS name, an IPv4 address or an IPv6 address (without brackets, a zone such as "%eth0" allowed).
//
// A name is of labels of 1 to 63 letters, digits, "-" and "_" that neither begin nor end with "-", joined by dots (one
// may stand at the end), at most 253 bytes (RFC 1035, and "_" since hosts have it). What ends in a number ("127.1",
// "0x7f.1") is an IPv4 address of four decimal numbers or refused: resolvers read such in ways of their own.
class HostName {
 public:
  static std::optional<HostName> parse(std::string_view text);
  // Throws Error(invalid_argument): "WHAT: \"…\" is neither a host name nor an address". `text` is shown shortened and
  // printable.
  static HostName require(std::string_view what, std::string_view text);

  const std::string& text() const { return text_; }
  bool is_address() const { return kind_ != Kind::name; }
  bool is_ipv6() const { return kind_ == Kind::ipv6; }
  // An address of this host's loopback (127.0.0.0/8, ::1, also mapped into IPv6), or exactly "localhost". A name that
  // merely begins so ("127.example.org") is a stranger's.
  bool is_loopback() const;
  // As a URL or a Host header has it: an IPv6 address in brackets.
  std::string in_url() const;

  bool operator==(const HostName&) const = default;

 private:
  enum class Kind { name, ipv4, ipv6 };
  HostName(Kind kind, std::string_view text) : kind_(kind), text_(text) {}
  Kind kind_;
  std::string text_;
};

// "HOST", "HOST:PORT", "[IPV6]" or "[IPV6]:PORT", as in a Host header or in a listener's address.
struct HostPort {
  HostName host;
  std::optional<std::uint16_t> port;
  static std::optional<HostPort> parse(std::string_view text);
};

}  // namespace guestagent

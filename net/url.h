// Addresses, compared the way that decides whether credentials may go there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace guestagent {

// RFC 3986 unreserved characters stay, and "/" where `keep_slash`; everything else becomes %XX in upper case.
std::string percent_encode(std::string_view text, bool keep_slash);
// nullopt for a broken escape.
std::optional<std::string> percent_decode(std::string_view text);

// An absolute http or https address without user, query or fragment, normalised: scheme and host in lower
// case, the port always there, the path decoded and split at its slashes, without empty components.
struct Url {
  std::string scheme;
  std::string host;  // an IPv6 address keeps its brackets
  std::uint16_t port = 0;
  std::vector<std::string> path;

  bool operator==(const Url&) const = default;
  // "http://host:8080", without the port where it is the scheme's own.
  std::string origin() const;
};

// nullopt for anything else, and for a path with a component "." or "..", a NUL or an encoded slash: what
// servers read in different ways is no address of ours. Input may be hostile.
std::optional<Url> parse_url(std::string_view text);

// The components of `url` below `root` (same scheme, host, port and leading path), or nullopt when it is not
// strictly below.
std::optional<std::vector<std::string>> path_below(const Url& root, const Url& url);

// The non-empty components of "a/b/c", and back.
std::vector<std::string> split_path(std::string_view path);
std::string join_path(const std::vector<std::string>& components);

}  // namespace guestagent

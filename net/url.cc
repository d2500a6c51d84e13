#include "net/url.h"

#include <algorithm>
#include <charconv>

namespace guestagent {
namespace {

bool unreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

bool valid_host(std::string_view host) {
  if (host.empty() || host.size() > 255) return false;
  if (host.front() == '[') {
    return host.size() > 2 && host.back() == ']' && std::ranges::all_of(host.substr(1, host.size() - 2), [](char c) {
             return hex_value(c) >= 0 || c == ':' || c == '.';
           });
  }
  return std::ranges::all_of(host, [](char c) { return unreserved(c) && c != '~'; });
}

// "host", "host:port", "[v6]:port"
bool read_authority(std::string_view text, Url& url) {
  const auto colon = text.find(':', text.starts_with('[') ? text.find(']') : 0);
  if (text.starts_with('[') && text.find(']') == std::string_view::npos) return false;
  const auto host = text.substr(0, colon);
  if (!valid_host(host)) return false;
  url.host = lower(host);
  url.port = url.scheme == "https" ? 443 : 80;
  if (colon == std::string_view::npos) return true;
  const auto digits = text.substr(colon + 1);
  if (digits.empty()) return true;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), url.port);
  return error == std::errc() && end == digits.data() + digits.size() && url.port != 0;
}

bool read_path(std::string_view text, Url& url) {
  while (!text.empty()) {
    text.remove_prefix(1);
    const auto end = std::min(text.find('/'), text.size());
    auto part = percent_decode(text.substr(0, end));
    if (!part || *part == "." || *part == ".." || part->find('/') != std::string::npos ||
        part->find('\0') != std::string::npos) {
      return false;
    }
    if (!part->empty()) url.path.push_back(std::move(*part));
    text.remove_prefix(end);
  }
  return true;
}

}  // namespace

std::string percent_encode(std::string_view text, bool keep_slash) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (unreserved(c) || (keep_slash && c == '/')) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size() || hex_value(text[i + 1]) < 0 || hex_value(text[i + 2]) < 0) return std::nullopt;
    out += static_cast<char>(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]));
    i += 2;
  }
  return out;
}

std::string Url::origin() const {
  const bool usual = port == (scheme == "https" ? 443 : 80);
  return scheme + "://" + host + (usual ? "" : ":" + std::to_string(port));
}

std::optional<Url> parse_url(std::string_view text) {
  if (text.size() > 8192 || text.find_first_of("?#\\ \t\r\n") != std::string_view::npos) return std::nullopt;
  const auto colon = text.find("://");
  if (colon == std::string_view::npos) return std::nullopt;
  Url url;
  url.scheme = lower(text.substr(0, colon));
  if (url.scheme != "http" && url.scheme != "https") return std::nullopt;
  text.remove_prefix(colon + 3);
  const auto slash = std::min(text.find('/'), text.size());
  if (!read_authority(text.substr(0, slash), url) || !read_path(text.substr(slash), url)) return std::nullopt;
  return url;
}

std::optional<std::vector<std::string>> path_below(const Url& root, const Url& url) {
  if (url.scheme != root.scheme || url.host != root.host || url.port != root.port) return std::nullopt;
  if (url.path.size() <= root.path.size() || !std::equal(root.path.begin(), root.path.end(), url.path.begin()))
    return std::nullopt;
  return std::vector<std::string>(url.path.begin() + static_cast<std::ptrdiff_t>(root.path.size()), url.path.end());
}

std::vector<std::string> split_path(std::string_view path) {
  std::vector<std::string> out;
  while (!path.empty()) {
    const auto slash = std::min(path.find('/'), path.size());
    if (slash > 0) out.emplace_back(path.substr(0, slash));
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return out;
}

std::string join_path(const std::vector<std::string>& components) {
  std::string out;
  for (const auto& component : components) out += (out.empty() ? "" : "/") + component;
  return out;
}

}  // namespace guestagent

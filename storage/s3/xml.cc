#include "storage/s3/xml.h"

#include <charconv>

namespace guestagent {
namespace {

constexpr unsigned kMaxDepth = 16;

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

bool append_utf8(std::string& out, unsigned long c) {
  if (c == 0 || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return false;
  const auto byte = [&](unsigned long value) { out += static_cast<char>(value); };
  if (c < 0x80) {
    byte(c);
  } else if (c < 0x800) {
    byte(0xC0 | c >> 6);
    byte(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    byte(0xE0 | c >> 12);
    byte(0x80 | (c >> 6 & 0x3F));
    byte(0x80 | (c & 0x3F));
  } else {
    byte(0xF0 | c >> 18);
    byte(0x80 | (c >> 12 & 0x3F));
    byte(0x80 | (c >> 6 & 0x3F));
    byte(0x80 | (c & 0x3F));
  }
  return true;
}

// "amp" or "#x41", between & and ;
bool append_entity(std::string& out, std::string_view name) {
  if (name == "amp") return out += '&', true;
  if (name == "lt") return out += '<', true;
  if (name == "gt") return out += '>', true;
  if (name == "quot") return out += '"', true;
  if (name == "apos") return out += '\'', true;
  if (!name.starts_with('#')) return false;
  name.remove_prefix(1);
  const int base = name.starts_with('x') ? 16 : 10;
  if (base == 16) name.remove_prefix(1);
  unsigned long value = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), value, base);
  return error == std::errc() && end == name.data() + name.size() && append_utf8(out, value);
}

class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}

  std::optional<XmlElement> document() {
    XmlElement root;
    if (!skip_around() || !element(root, 0) || !skip_around() || !rest_.empty()) return std::nullopt;
    return root;
  }

 private:
  bool skip_to(std::string_view mark) {
    const auto at = rest_.find(mark);
    if (at == std::string_view::npos) return false;
    rest_.remove_prefix(at + mark.size());
    return true;
  }

  // Space, comments and processing instructions outside of the root.
  bool skip_around() {
    while (!rest_.empty()) {
      if (is_space(rest_.front())) {
        rest_.remove_prefix(1);
      } else if (rest_.starts_with("<?")) {
        if (!skip_to("?>")) return false;
      } else if (rest_.starts_with("<!--")) {
        if (!skip_to("-->")) return false;
      } else {
        break;
      }
    }
    return true;
  }

  // What stands between < and >, quotes respected.
  std::optional<std::string_view> tag() {
    char quote = 0;
    for (std::size_t i = 1; i < rest_.size(); ++i) {
      const char c = rest_[i];
      if (quote != 0) {
        if (c == quote) quote = 0;
      } else if (c == '"' || c == '\'') {
        quote = c;
      } else if (c == '<') {
        return std::nullopt;
      } else if (c == '>') {
        const auto inside = rest_.substr(1, i - 1);
        rest_.remove_prefix(i + 1);
        return inside;
      }
    }
    return std::nullopt;
  }

  static std::string_view name_of(std::string_view inside) {
    std::size_t end = 0;
    while (end < inside.size() && !is_space(inside[end]) && inside[end] != '/') ++end;
    inside = inside.substr(0, end);
    const auto colon = inside.rfind(':');
    return colon == std::string_view::npos ? inside : inside.substr(colon + 1);
  }

  bool element(XmlElement& out, unsigned depth) {
    if (depth >= kMaxDepth || !rest_.starts_with('<')) return false;
    const auto open = tag();
    if (!open) return false;
    out.name = name_of(*open);
    if (out.name.empty() || out.name.front() == '!' || out.name.front() == '?') return false;
    if (open->ends_with('/')) return true;
    while (!rest_.empty()) {
      if (rest_.starts_with("</")) {
        const auto close = tag();
        return close && name_of(close->substr(1)) == out.name;
      }
      if (rest_.starts_with("<!--")) {
        if (!skip_to("-->")) return false;
      } else if (rest_.starts_with('<')) {
        XmlElement child;
        if (!element(child, depth + 1)) return false;
        out.children.push_back(std::move(child));
      } else if (!text(out.text)) {
        return false;
      }
    }
    return false;
  }

  bool text(std::string& out) {
    const auto end = rest_.find('<');
    if (end == std::string_view::npos) return false;
    auto piece = rest_.substr(0, end);
    rest_.remove_prefix(end);
    while (!piece.empty()) {
      const auto amp = piece.find('&');
      out += piece.substr(0, amp);
      if (amp == std::string_view::npos) break;
      piece.remove_prefix(amp + 1);
      const auto semicolon = piece.find(';');
      if (semicolon == std::string_view::npos || !append_entity(out, piece.substr(0, semicolon))) return false;
      piece.remove_prefix(semicolon + 1);
    }
    return true;
  }

  std::string_view rest_;
};

}  // namespace

const XmlElement* XmlElement::child(std::string_view child_name) const {
  for (const XmlElement& one : children) {
    if (one.name == child_name) return &one;
  }
  return nullptr;
}

std::string XmlElement::child_text(std::string_view child_name) const {
  const XmlElement* found = child(child_name);
  return found == nullptr ? std::string() : found->text;
}

std::optional<XmlElement> parse_xml(std::string_view text) {
  return Parser(text).document();
}

}  // namespace guestagent

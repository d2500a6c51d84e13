#include "net/metrics_text.h"

#include <array>
#include <charconv>

#include "base/text.h"

namespace guestagent {
namespace {

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : to_utf8(text)) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

void MetricsText::family(std::string_view name, std::string_view kind, std::string_view help) {
  name_ = name;
  text_ += "# HELP " + name_ + " " + std::string(help) + "\n# TYPE " + name_ + " " + std::string(kind) + "\n";
}

void MetricsText::sample(Labels labels, double value) {
  text_ += name_;
  char open = '{';
  for (const auto& [name, text] : labels) {
    text_ += open + std::string(name) + "=\"" + escaped(text) + "\"";
    open = ',';
  }
  if (labels.size() > 0) text_ += '}';
  std::array<char, 32> number;  // the shortest text that is this number again
  const auto end = std::to_chars(number.data(), number.data() + number.size(), value).ptr;
  text_.append(" ").append(number.data(), end) += '\n';
}

}  // namespace guestagent

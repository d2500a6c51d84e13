#include "config/units.h"

#include <array>
#include <charconv>

namespace guestagent {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::uint64_t kKi = 1024;
constexpr std::array<Unit, 14> kSizeUnits = {{{"TiB", kKi* kKi* kKi* kKi},
                                              {"GiB", kKi* kKi* kKi},
                                              {"MiB", kKi* kKi},
                                              {"KiB", kKi},
                                              {"B", 1},
                                              {"", 1},
                                              {"K", kKi},
                                              {"M", kKi* kKi},
                                              {"G", kKi* kKi* kKi},
                                              {"T", kKi* kKi* kKi* kKi},
                                              {"KB", 1000},
                                              {"MB", 1000000},
                                              {"GB", 1000000000},
                                              {"TB", 1000000000000}}};
constexpr std::array<Unit, 5> kTimeUnits = {{{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}}};
constexpr std::uint64_t kMaxMillis = std::uint64_t{100} * 366 * 86400000;

std::size_t digits_at_start(std::string_view text) {
  std::size_t n = 0;
  while (n < text.size() && text[n] >= '0' && text[n] <= '9') ++n;
  return n;
}

std::optional<std::uint64_t> parse_base(std::string_view text, int base) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<std::uint64_t> parse_whole(std::string_view text) {
  return parse_base(text, 10);
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  const std::size_t digits = digits_at_start(text);
  const auto number = parse_whole(text.substr(0, digits));
  if (!number) return std::nullopt;
  std::string_view name = text.substr(digits);
  if (name.starts_with(' ')) name.remove_prefix(1);
  for (const Unit& unit : kSizeUnits) {
    if (unit.name != name) continue;
    if (*number > UINT64_MAX / unit.factor) return std::nullopt;
    return *number * unit.factor;
  }
  return std::nullopt;
}

std::optional<Millis> parse_duration(std::string_view text) {
  if (text == "0") return Millis(0);
  std::uint64_t sum = 0;
  std::uint64_t smallest = UINT64_MAX;
  if (text.empty()) return std::nullopt;
  while (!text.empty()) {
    const std::size_t digits = digits_at_start(text);
    const auto number = parse_whole(text.substr(0, digits));
    if (!number) return std::nullopt;
    text.remove_prefix(digits);
    const std::size_t letters = std::min(text.find_first_of("0123456789"), text.size());
    std::uint64_t factor = 0;
    for (const Unit& unit : kTimeUnits) {
      if (unit.name == text.substr(0, letters)) factor = unit.factor;
    }
    // Units go downwards: "30m1h" is more likely a slip than meant.
    if (factor == 0 || factor >= smallest || *number > kMaxMillis / factor) return std::nullopt;
    smallest = factor;
    sum += *number * factor;
    if (sum > kMaxMillis) return std::nullopt;
    text.remove_prefix(letters);
  }
  return Millis(static_cast<Millis::rep>(sum));
}

std::optional<unsigned> parse_mode(std::string_view text) {
  if (text.starts_with("0o")) text.remove_prefix(2);
  if (text.size() < 3 || text.size() > 4) return std::nullopt;
  const auto value = parse_base(text, 8);
  if (!value || *value > 0777) return std::nullopt;
  return static_cast<unsigned>(*value);
}

std::string format_size(std::uint64_t bytes) {
  for (const Unit& unit : kSizeUnits) {
    if (unit.factor > 1 && bytes != 0 && bytes % unit.factor == 0)
      return std::to_string(bytes / unit.factor) + std::string(unit.name);
    if (unit.factor == 1) break;
  }
  return std::to_string(bytes);
}

std::string format_duration(Millis duration) {
  const auto millis = static_cast<std::uint64_t>(duration.count());
  if (millis == 0) return "0";
  for (const Unit& unit : kTimeUnits) {
    if (millis % unit.factor == 0) return std::to_string(millis / unit.factor) + std::string(unit.name);
  }
  return std::to_string(millis) + "ms";
}

}  // namespace guestagent

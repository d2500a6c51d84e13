// Sizes, durations and modes as people write them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace guestagent {

inline constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

// "4096", "512KiB", "32MiB", "4GiB", "1TiB"; K, M, G, T mean the same; KB, MB, GB, TB are powers of 1000.
// nullopt for anything else, and for what 64 bits cannot hold.
std::optional<std::uint64_t> parse_size(std::string_view text);

// "500ms", "30s", "10m", "24h", "7d", joined as in "1h30m"; "0" needs no unit. nullopt for anything else, and
// past 100 years.
std::optional<Millis> parse_duration(std::string_view text);

// "0660", "660", "0o660": octal, at most 0777.
std::optional<unsigned> parse_mode(std::string_view text);

// A whole number in decimal digits.
std::optional<std::uint64_t> parse_whole(std::string_view text);

// The shortest exact form: "32MiB", "10m", "0".
std::string format_size(std::uint64_t bytes);
std::string format_duration(Millis duration);

}  // namespace guestagent

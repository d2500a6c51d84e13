// The values of an enum class and their texts, one table for writing and for reading.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/text.h"

namespace guestagent {

// REQUIRES: the texts stand in the order of the values, which count from 0.
template <typename E, std::size_t N>
struct EnumTexts {
  std::array<std::string_view, N> texts;

  constexpr std::string_view text(E value) const { return texts.at(static_cast<std::size_t>(value)); }
  // nullopt for a text that names none.
  constexpr std::optional<E> value(std::string_view text) const {
    const auto at = std::find(texts.begin(), texts.end(), text);
    if (at == texts.end()) return std::nullopt;
    return static_cast<E>(at - texts.begin());
  }
  // A member that must name one; the reader's error says what it has instead.
  E read(const JsonReader& in, std::string_view key) const {
    const std::string said = in.string(key);
    if (const auto named = value(said)) return *named;
    throw in.error(key, "unknown: \"" + printable(said) + "\"");
  }
};

}  // namespace guestagent

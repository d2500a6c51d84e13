// Small helpers for text that people or machines read.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace guestagent {

// True when `text` is well-formed UTF-8 (no overlong forms, no surrogates).
bool valid_utf8(std::string_view text);
// `text` with every malformed byte replaced by U+FFFD.
std::string to_utf8(std::string_view text);

// At most `max` bytes of `text` (never in the middle of a UTF-8 sequence), control characters shown as "?";
// for words of a stranger inside a message.
std::string printable(std::string_view text, std::size_t max = 80);

// The one of `known` that a mistyped `word` most likely means, or "" when none is near.
std::string_view nearest(std::string_view word, const std::vector<std::string_view>& known);

// "a, b, c"
std::string join(const std::vector<std::string_view>& words, std::string_view separator = ", ");

}  // namespace guestagent

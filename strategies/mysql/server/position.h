// Where in its history a server of this family is. Others carry it as OwnJson.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "strategies/own_json.h"

namespace guestagent::mysql {

// Fields the server cannot tell are null.
struct Position {
  std::optional<std::string> file;
  std::optional<std::uint64_t> offset;
  std::optional<std::string> gtid;  // a GTID set in the server's own spelling
  bool restored = false;            // "known": true -> "restored" (only the restored data can tell), false -> "now"
  bool operator==(const Position&) const = default;
};

// `{"file", "position", "gtid", "known"}`, all four, in this order: equal positions have equal texts.
OwnJson own(const Position& position);

// Lenient with unknown and missing members; throws the reader's error for what is no position. What is read is safe to
// pass on: a file has no slash and is one line, a GTID set has only what such sets are made of (and line breaks).
Position read_position(const JsonReader& in);

// One that own() made, or read_position found good: `{}` is one of which nothing is known. Throws Error(internal) where
// it is of another engine.
Position position_of(const OwnJson& own);

}  // namespace guestagent::mysql

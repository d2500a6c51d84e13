// Chunks of the xbstream format, as the tools write them.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "stream/crc32.h"

namespace guestagent::test {

template <typename T>
std::string xbstream_number(T value) {
  std::string out;
  for (std::size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(value >> (8 * i) & 0xff);
  return out;
}

inline std::string xbstream_head(char type, const std::string& path, char flags = 0) {
  return std::string("XBSTCK01") + flags + type + xbstream_number(static_cast<std::uint32_t>(path.size())) + path;
}

inline std::uint32_t xbstream_crc(const std::string& bytes) {
  return crc32(0, as_bytes(bytes));
}

inline std::string xbstream_data(const std::string& path, const std::string& content, std::uint64_t offset = 0,
                                 char flags = 0) {
  return xbstream_head('P', path, flags) + xbstream_number(static_cast<std::uint64_t>(content.size())) +
         xbstream_number(offset) + xbstream_number(xbstream_crc(content)) + content;
}

inline std::string xbstream_end(const std::string& path) {
  return xbstream_head('E', path);
}

// MariaDB's
inline std::string xbstream_seek(const std::string& path, std::uint64_t to) {
  return xbstream_head('S', path) + xbstream_number(to);
}
inline std::string xbstream_move(const std::string& from, const std::string& to) {
  return xbstream_head('R', from) + xbstream_number(static_cast<std::uint32_t>(to.size())) + to;
}

// Percona's; each hole is how many bytes are left out and how many of `content` follow.
inline std::string xbstream_holes(const std::string& path, const std::string& content,
                                  const std::vector<std::pair<std::uint32_t, std::uint32_t>>& holes,
                                  std::uint64_t offset = 0) {
  std::string map;
  for (const auto& [left_out, bytes] : holes) map += xbstream_number(left_out) + xbstream_number(bytes);
  return xbstream_head('S', path) + xbstream_number(static_cast<std::uint32_t>(holes.size())) +
         xbstream_number(static_cast<std::uint64_t>(content.size())) + xbstream_number(offset) +
         xbstream_number(xbstream_crc(map + content)) + map + content;
}

}  // namespace guestagent::test

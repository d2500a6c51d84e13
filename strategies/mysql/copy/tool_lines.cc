#include "strategies/mysql/copy/tool_lines.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace guestagent::mysql {
namespace {

constexpr std::string_view kWaiting = "Waiting for query ";
constexpr std::string_view kGaveUp = "Unable to obtain lock. Please try again later.";

// `pattern`: 0 a digit, else itself.
bool looks_like(std::string_view text, std::string_view pattern) {
  return text.size() >= pattern.size() && std::equal(pattern.begin(), pattern.end(), text.begin(), [](char p, char c) {
           return p == '0' ? std::isdigit(static_cast<unsigned char>(c)) != 0 : p == c;
         });
}

// A line with which the tool itself begins; what is in doubt is the query's.
bool begins_anew(std::string_view line) {
  while (line.starts_with('.')) line.remove_prefix(1);
  constexpr std::array<std::string_view, 4> times = {"000000 00:00:00 ", "000000  0:00:00 ", "0000-00-00T00:00:00",
                                                     "[00] 0000-00-00 00:00:00 "};
  constexpr std::array<std::string_view, 7> words = {"Warning: option ",
                                                     "xtrabackup: ",
                                                     "mariabackup: ",
                                                     "mariadb-backup: ",
                                                     "MySQL binlog position: ",
                                                     "completed OK!",
                                                     "Error: failed to execute query"};
  return std::any_of(times.begin(), times.end(), [&](std::string_view each) { return looks_like(line, each); }) ||
         std::any_of(words.begin(), words.end(), [&](std::string_view each) { return line.starts_with(each); });
}

bool gave_up(std::string_view line) {
  while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())) != 0) line.remove_suffix(1);
  return line.ends_with(kGaveUp);
}

}  // namespace

std::vector<std::string> ToolLines::take(std::string_view line) {
  if (in_query_ && !begins_anew(line)) {
    return gave_up(line) ? std::vector{std::string(kGaveUp)} : std::vector<std::string>();
  }
  const std::size_t at = line.find(kWaiting);
  in_query_ = at != std::string_view::npos;
  if (!in_query_) return {std::string(line)};
  // "8 (duration 3 sec): SELECT …"
  std::size_t end = at + kWaiting.size();
  const std::string_view rest = line.substr(end);
  const std::size_t known = rest.find_first_not_of("0123456789 ()adeinorstuc");
  const std::size_t close = rest.find("): ");
  end =
      close != std::string_view::npos && (known == std::string_view::npos || known > close) ? end + close + 1 : end - 1;
  std::vector<std::string> out = {std::string(line.substr(0, end))};
  if (gave_up(line)) out.emplace_back(kGaveUp);
  return out;
}

}  // namespace guestagent::mysql

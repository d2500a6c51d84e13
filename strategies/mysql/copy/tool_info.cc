#include "strategies/mysql/copy/tool_info.h"

#include <charconv>

namespace guestagent::mysql {
namespace {

Error malformed(std::string_view file, std::string_view what, std::string_view why) {
  return Error(Code::data_loss,
               "reading the backup's " + std::string(file) + ": " + std::string(what) + ": " + std::string(why),
               "the copy is not whole; take it again");
}

std::string_view trim(std::string_view text) {
  const auto space = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return text;
}

std::optional<std::uint64_t> whole_number(std::string_view text) {
  std::uint64_t out = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (failed != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return out;
}

// The value of "name = value" lines; nullopt when the name is not there.
std::optional<std::string> field(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos || trim(line.substr(0, equals)) != name) continue;
    return std::string(trim(line.substr(equals + 1)));
  }
  return std::nullopt;
}

std::uint64_t required_number(std::string_view text, std::string_view name, std::string_view file) {
  const auto value = field(text, name);
  if (!value) throw malformed(file, name, "missing");
  const auto number = whole_number(*value);
  if (!number) throw malformed(file, name, "\"" + value->substr(0, 40) + "\" is no number");
  return *number;
}

std::string required_text(std::string_view text, std::string_view name, std::string_view file) {
  const auto value = field(text, name);
  if (!value || value->empty()) throw malformed(file, name, "missing");
  return *value;
}

bool required_flag(std::string_view text, std::string_view name, std::string_view file) {
  const std::string value = required_text(text, name, file);
  if (value == "N" || value == "None") return false;
  if (value == "Y" || value == "compressed") return true;
  throw malformed(file, name, "\"" + value.substr(0, 40) + "\" is neither Y nor N");
}

// "name.000123": what a server calls a file of its binary log, and nothing that could be a path to elsewhere.
bool is_binlog_name(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot == 0 || name.size() - dot - 1 < 6 || name.size() > 512) return false;
  if (name.substr(dot + 1).find_first_not_of("0123456789") != std::string_view::npos) return false;
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == '\'' || c == '/' || c == '\\') return false;
  }
  return true;
}

// Letters that a GTID set of either kind is made of (MySQL's tags included).
bool is_gtid_text(std::string_view text) {
  for (const char c : text) {
    const bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!word && c != '-' && c != ',' && c != ':' && c != '_') return false;
  }
  return true;
}

std::string without_spaces(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c != '\n' && c != '\r' && c != ' ' && c != '\t') out += c;
  }
  return out;
}

// What stands between `before` and the next quote, from `at` on.
std::optional<std::string_view> quoted_after(std::string_view text, std::string_view before) {
  const std::size_t start = text.find(before);
  if (start == std::string_view::npos) return std::nullopt;
  const std::size_t open = start + before.size();
  const std::size_t close = text.find('\'', open);
  if (close == std::string_view::npos) return std::nullopt;
  return text.substr(open, close - open);
}

}  // namespace

ToolInfo parse_tool_info(std::string_view text, std::string_view file_name) {
  ToolInfo out;
  out.tool_name = required_text(text, "tool_name", file_name);
  out.tool_version = required_text(text, "tool_version", file_name);
  out.server_version = required_text(text, "server_version", file_name);
  out.start_time = required_text(text, "start_time", file_name);
  out.end_time = required_text(text, "end_time", file_name);
  if (const auto lsn = field(text, "innodb_from_lsn"); lsn && !lsn->empty()) {
    out.innodb_from_lsn = required_number(text, "innodb_from_lsn", file_name);
  }
  if (const auto lsn = field(text, "innodb_to_lsn"); lsn && !lsn->empty()) {
    out.innodb_to_lsn = required_number(text, "innodb_to_lsn", file_name);
  }
  out.partial = required_flag(text, "partial", file_name);
  out.incremental = required_flag(text, "incremental", file_name);
  if (const auto compact = field(text, "compact"); compact && !compact->empty()) {
    out.compact = required_flag(text, "compact", file_name);
  }
  out.compressed = required_flag(text, "compressed", file_name);
  if (const auto encrypted = field(text, "encrypted"); encrypted && !encrypted->empty()) {
    out.encrypted = required_flag(text, "encrypted", file_name);
  }
  out.format = required_text(text, "format", file_name);
  // MySQL's GTID sets go over several lines, up to the next field.
  if (const std::size_t at = text.find("\nbinlog_pos ="); at != std::string_view::npos) {
    std::string_view rest = text.substr(at + 13);
    const std::size_t next = rest.find("\ninnodb_from_lsn");
    out.binlog_pos = std::string(trim(rest.substr(0, next)));
  }
  if (const auto seconds = field(text, "lock_time"); seconds && !seconds->empty()) {
    double value = 0;
    const auto [end, failed] = std::from_chars(seconds->data(), seconds->data() + seconds->size(), value);
    if (failed == std::errc() && value >= 0) out.lock_time_s = value;
  }
  return out;
}

Position parse_binlog_info(std::string_view text, std::string_view file_name) {
  const std::size_t tab = text.find('\t');
  if (tab == std::string_view::npos) throw malformed(file_name, "file", "missing");
  // Else a number cut short would be a number too.
  if (text.back() != '\n') throw malformed(file_name, "line", "it does not end");
  const std::string_view file = text.substr(0, tab);
  if (!is_binlog_name(file))
    throw malformed(file_name, "file", "\"" + std::string(file.substr(0, 80)) + "\" is no binary log");
  std::string_view rest = text.substr(tab + 1);
  const std::size_t end = rest.find_first_of("\t\n");
  const auto offset = whole_number(trim(rest.substr(0, end)));
  if (!offset || *offset < 4) throw malformed(file_name, "position", "missing or no number");
  Position out;
  out.file = std::string(file);
  out.offset = *offset;
  if (end != std::string_view::npos && rest[end] == '\t') {
    const std::string gtid = without_spaces(rest.substr(end + 1));
    if (!is_gtid_text(gtid)) throw malformed(file_name, "GTID set", "not one");
    out.gtid = gtid;
  } else if (end != std::string_view::npos && !trim(rest.substr(end)).empty()) {
    throw malformed(file_name, "position", "followed by something else than a GTID set");
  }
  return out;
}

std::optional<Position> position_in_line(std::string_view line) {
  const auto file = quoted_after(line, "filename '");
  const auto offset = quoted_after(line, "position '");
  if (!file || !offset || !is_binlog_name(*file)) return std::nullopt;
  Position out;
  out.file = std::string(*file);
  out.offset = whole_number(*offset);
  if (!out.offset) return std::nullopt;
  if (const auto gtid = quoted_after(line, "GTID of the last change '")) {
    const std::string set = without_spaces(*gtid);
    if (!is_gtid_text(set)) return std::nullopt;
    out.gtid = set;
  }
  return out;
}

ToolCheckpoints parse_checkpoints(std::string_view text, std::string_view file_name) {
  ToolCheckpoints out;
  out.backup_type = required_text(text, "backup_type", file_name);
  out.from_lsn = required_number(text, "from_lsn", file_name);
  out.to_lsn = required_number(text, "to_lsn", file_name);
  out.last_lsn = required_number(text, "last_lsn", file_name);
  if (out.from_lsn > out.to_lsn || out.to_lsn > out.last_lsn) throw malformed(file_name, "last_lsn", "before to_lsn");
  return out;
}

bool says_completed(std::string_view last_line) {
  return trim(last_line).ends_with("completed OK!");
}

std::string parse_tool_version(std::string_view output) {
  for (const std::string_view before : {"MariaDB server ", "xtrabackup version ", "XtraBackup version "}) {
    const std::size_t at = output.find(before);
    if (at == std::string_view::npos) continue;
    const std::string_view rest = output.substr(at + before.size());
    const std::size_t end = rest.find_first_not_of("0123456789.-");
    std::string_view version = rest.substr(0, end);
    // "10.11.19-MariaDB": the dash is the name's.
    while (!version.empty() && (version.back() == '-' || version.back() == '.')) version.remove_suffix(1);
    if (!version.empty() && version.find('.') != std::string_view::npos) return std::string(version);
  }
  throw Error(Code::internal,
              "reading the backup tool's version: \"" + std::string(trim(output).substr(0, 80)) + "\" has none",
              "is this mariadb-backup or xtrabackup?");
}

fs::path find_info_file(const fs::path& dir, std::span<const std::string_view> names) {
  std::string tried;
  for (const std::string_view name : names) {
    if (fs::is_regular_file(dir / name)) return dir / name;
    tried += (tried.empty() ? "" : ", ") + std::string(name);
  }
  throw Error(Code::data_loss, "reading what the backup tool wrote: " + dir.string() + ": none of " + tried,
              "the copy is not whole; take it again");
}

}  // namespace guestagent::mysql

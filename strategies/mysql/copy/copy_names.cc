#include "strategies/mysql/copy/copy_names.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "base/text.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kLongestPath = 1024, kLongestPart = 255;
constexpr std::size_t kDeepest =
    4;  // a directory of a database or of logs, and a level to spare for engines of their own kind
constexpr unsigned kSpecialBits = 07000, kSetUser = 04000;

// What a server, a tool or a shell would load, run or obey, and no engine makes.
constexpr std::array<std::string_view, 11> kActive = {"so", "dll", "dylib", "cnf",     "ini", "my",
                                                      "sh", "py",  "pl",    "service", "exe"};

std::string small_letters(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// Options that the tools themselves put there, which are read by nobody before the agent has written them anew. Of
// auto.cnf and mysqld-auto.cnf it is known that they are left out.
bool is_tools_own(std::string_view path) {
  return path == "backup-my.cnf" || path == "auto.cnf" || path == "mysqld-auto.cnf" || is_component_options(path);
}

// "libx.so.1.2"; a number of six digits is a log's.
bool is_numbered_library(std::string_view small) {
  const std::size_t at = small.rfind(".so.");
  if (at == std::string_view::npos || small.size() - at - 4 > 9) return false;
  std::size_t digits = 0;
  for (const char c : small.substr(at + 4)) {
    digits = c == '.' ? 0 : digits + 1;
    if ((c != '.' && std::isdigit(static_cast<unsigned char>(c)) == 0) || digits > 5) return false;
  }
  return true;
}

bool is_active(std::string_view name) {
  const std::string small = small_letters(name);
  if (is_numbered_library(small)) return true;
  const std::size_t dot = small.rfind('.');
  return dot != std::string::npos && std::find(kActive.begin(), kActive.end(), small.substr(dot + 1)) != kActive.end();
}

std::string part_misfit(std::string_view part) {
  if (part.empty() || part == ".") return "it has an empty part";
  if (part == "..") return "it leads out of the directory";
  if (part.size() > kLongestPart) return "a part of it has more than " + std::to_string(kLongestPart) + " bytes";
  // MyRocks keeps its files so on some servers.
  if (part.front() == '.' && part != ".rocksdb") return "it is hidden";
  return "";
}

}  // namespace

bool is_component_options(std::string_view path) {
  return path.starts_with("xtrabackup_component_keyring_") && path.ends_with(".cnf") &&
         path.find('/') == std::string_view::npos;
}

std::string copy_name_misfit(std::string_view path) {
  if (path.empty()) return "it is empty";
  if (path.front() == '/') return "it is absolute";
  if (path.size() > kLongestPath) return "it has more than " + std::to_string(kLongestPath) + " bytes";
  const auto control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; };
  if (std::any_of(path.begin(), path.end(), control)) return "it has a control character";
  if (!valid_utf8(path)) return "it is no UTF-8";
  std::size_t parts = 0;
  std::string_view rest = path, last;
  for (std::size_t end = 0; end != std::string_view::npos;) {
    end = rest.find('/');
    last = rest.substr(0, end);
    if (std::string why = part_misfit(last); !why.empty()) return why;
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (++parts > kDeepest) return "it is more than " + std::to_string(kDeepest) + " levels deep";
  }
  if (is_active(last) && !is_tools_own(path)) return "a program would load or obey such a file";
  return "";
}

void check_copy_name(std::string_view path) {
  const std::string why = copy_name_misfit(path);
  if (why.empty()) return;
  throw Error(
      Code::data_loss,
      "checking the copy's names: \"" + printable(path, 120) + "\": " + why + ": no data directory has such an entry",
      "do not use this snapshot: see who can write to the store, and take a new one");
}

void check_copy_mode(std::string_view path, unsigned mode) {
  // A directory may have inherited the group of the one around it.
  if ((mode & (S_ISDIR(mode) ? kSetUser : kSpecialBits)) == 0) return;
  throw Error(Code::data_loss,
              "checking the copy's names: \"" + printable(path, 120) + "\": it would run as another user",
              "do not use this snapshot: see who can write to the store, and take a new one");
}

}  // namespace guestagent::mysql

#include "strategies/mysql/copy/copy_options.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <sstream>

#include "base/child.h"
#include "base/error.h"
#include "base/text.h"
#include "strategies/mysql/copy/tool_options.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/host/server_control.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kLongestValue = 256;

// All that mariadb-backup and xtrabackup, of any series, write there and read again.
constexpr std::array<std::string_view, 26> kNeeded = {"innodb_checksum_algorithm",
                                                      "innodb_log_checksum_algorithm",
                                                      "innodb_fast_checksum",
                                                      "innodb_log_checksums",
                                                      "innodb_data_file_path",
                                                      "innodb_log_files_in_group",
                                                      "innodb_log_file_size",
                                                      "innodb_log_block_size",
                                                      "innodb_page_size",
                                                      "innodb_undo_tablespaces",
                                                      "innodb_undo_logs",
                                                      "innodb_rollback_segments",
                                                      "innodb_compression_level",
                                                      "innodb_compression_algorithm",
                                                      "innodb_encrypt_log",
                                                      "innodb_encrypt_tables",
                                                      "innodb_redo_log_encrypt",
                                                      "innodb_undo_log_encrypt",
                                                      "innodb_redo_log_capacity",
                                                      "innodb_buffer_pool_filename",
                                                      "lower_case_table_names",
                                                      "redo_log_version",
                                                      "server_id",
                                                      "server_uuid",
                                                      "master_key_id",
                                                      "innodb_log_compressed_pages"};

constexpr std::array<std::string_view, 6> kKeyPlugins = {"file_key_management", "hashicorp_key_management",
                                                         "aws_key_management",  "keyring_file",
                                                         "keyring_vault",       "keyring_encrypted_file"};

template <typename List>
bool is_in(const List& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.remove_suffix(1);
  return text;
}

std::string option_key(std::string_view text) {
  std::string out(trimmed(text));
  for (char& c : out) c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (out.starts_with("loose_")) out.erase(0, 6);
  return out;
}

std::string_view bare_value(std::string_view text) {
  text = trimmed(text);
  if (text.size() >= 2 && text.front() == text.back() && (text.front() == '"' || text.front() == '\''))
    text = text.substr(1, text.size() - 2);
  return text;
}

bool is_plain(std::string_view value) {
  return value.size() <= kLongestValue &&
         std::all_of(value.begin(), value.end(),
                     [](char c) {
                       return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                              std::string_view("_.:;+-").find(c) != std::string_view::npos;
                     }) &&
         value.find("..") == std::string_view::npos;
}

[[noreturn]] void refuse_option(std::string_view line, const std::string& why) {
  throw Error(Code::data_loss,
              "checking the copy's " + std::string(kCopyOptionsFile) + ": " + printable(line, 120) + ": " + why,
              "do not use this snapshot: see who can write to the store, and take a new one");
}

// "file_key_management=file_key_management.so" and the like.
std::string key_plugin_of(std::string_view line, std::string_view value) {
  for (const std::string_view plugin : kKeyPlugins) {
    const std::string name(plugin), file = name + ".so";
    for (const std::string& known : {name, file, name + "=" + name, name + "=" + file}) {
      if (value == known) return name;
    }
  }
  refuse_option(line, "it would load a program, and no backup tool writes it");
}

void take_option(CopyOptions& out, std::string_view line) {
  const std::size_t equals = line.find('=');
  const std::string name = option_key(line.substr(0, equals));
  const std::string_view value =
      equals == std::string_view::npos ? std::string_view() : bare_value(line.substr(equals + 1));
  if (name.starts_with("plugin_load") || name.starts_with("early_plugin_load")) {
    if (!value.empty()) out.key_plugin = key_plugin_of(line, value);
    return;
  }
  if (is_in(kNeeded, name)) {
    if (!is_plain(value)) refuse_option(line, "not a plain value");
    out.kept.emplace_back(name, value);
    return;
  }
  // The tools put these into every copy; all files are in the copy itself now.
  if (name == "innodb_undo_directory" || name == "plugin_dir" || name == "xtrabackup_plugin_dir") return;
  const auto of_plugin = [&](std::string_view plugin) { return name.starts_with(std::string(plugin) + "_"); };
  if (std::any_of(kKeyPlugins.begin(), kKeyPlugins.end(), of_plugin)) return;
  if (name.find("plugin") != std::string::npos)
    refuse_option(line, "it would load a program, and no backup tool writes it");
  out.dropped.push_back(printable(name, 60));
}

// This host's own options of that plugin, and its plugin_dir, as the server reads them: option files, then the command
// line.
std::vector<std::pair<std::string, std::string>> own_server_options(const MysqlSettings& settings) {
  std::vector<std::pair<std::string, std::string>> out;
  std::error_code ignored;
  if (fs::exists(settings.defaults_file, ignored)) {
    for (const OptionLine& line : read_option_files(settings.defaults_file).lines) {
      if (is_server_group(line.group)) out.emplace_back(option_key(line.name), line.value);
    }
  }
  for (const std::string& argument : settings.server.command) {
    const std::size_t equals = argument.find('=');
    if (!argument.starts_with("--") || equals == std::string::npos) continue;
    out.emplace_back(option_key(std::string_view(argument).substr(2, equals - 2)), argument.substr(equals + 1));
  }
  return out;
}

}  // namespace

CopyOptions read_copy_options(std::string_view text) {
  CopyOptions out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    if (line.front() == '!') refuse_option(line, "it would read another file, and no backup tool writes it");
    if (line.front() != '[') take_option(out, line);
  }
  return out;
}

std::string own_plugin_dir(const MysqlSettings& settings) {
  std::string found;
  for (const auto& [name, value] : own_server_options(settings)) {
    if (name == "plugin_dir") found = value;
  }
  if (!found.empty()) return found;
  // A table of all options with their values, one a line, ends it.
  ChildSpec ask;
  ask.argv = server_argv(settings, {"--verbose", "--help"}, "/dev/null");
  ask.env = server_environment();
  ask.run_as = server_user(settings);
  std::istringstream said(run_and_read(std::move(ask), Millis{60000}, std::size_t{4} << 20));
  for (std::string line; std::getline(said, line);) {
    if (line.starts_with("plugin-dir ")) found = trimmed(std::string_view(line).substr(11));
  }
  if (!found.empty()) return found;
  throw Error(Code::failed_precondition,
              "looking for this host's plugins: " + settings.server.command.at(0) + " does not tell its plugin-dir",
              "set plugin_dir in the server's option file");
}

std::string write_copy_options(const CopyOptions& options, bool mariadb, const MysqlSettings& settings) {
  std::string out = "# Written by guestagent from the file of this name that came with the copy.\n[mysqld]\n";
  for (const auto& [name, value] : options.kept) out += name + "=" + value + "\n";
  out += "innodb_undo_directory=./\n";
  if (options.key_plugin.empty()) return out;
  std::string own;
  for (const auto& [name, value] : own_server_options(settings)) {
    if (name.starts_with(options.key_plugin + "_")) own += name + "=" + option_file_value(value) + "\n";
  }
  if (own.empty()) {
    throw Error(Code::failed_precondition,
                "preparing the copy: it keeps its tables' keys by the plugin " + options.key_plugin +
                    ", of which this host's server has no options",
                "configure that plugin in this server's option files, with the source's keys");
  }
  out += "plugin_load=" + options.key_plugin + ".so\n";
  out += std::string(mariadb ? "plugin_dir=" : "xtrabackup_plugin_dir=") + option_file_value(own_plugin_dir(settings)) +
         "\n";
  return out + own;
}

}  // namespace guestagent::mysql

#include "strategies/mysql/host/host_needs.h"

#include <algorithm>

namespace guestagent::mysql {
namespace {

std::string in_quotes(const std::string& word) {
  std::string out = "'";
  for (const char c : word) c == '\'' ? out += "'\\''" : out += c;
  return out + "'";
}

// Whether the server's option files, from `settings.defaults_file` on, lead to the managed file.
bool is_included(const MysqlSettings& settings) {
  const fs::path dir = settings.managed_file.parent_path();
  std::vector<fs::path> files = {settings.defaults_file};
  std::vector<std::string> seen;
  while (!files.empty()) {
    const fs::path file = files.back();
    files.pop_back();
    if (std::find(seen.begin(), seen.end(), file.string()) != seen.end()) continue;
    seen.push_back(file.string());
    const std::string text = read_file(file);
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      std::string line = text.substr(at, end - at);
      at = end + 1;
      line.erase(0, line.find_first_not_of(" \t"));
      line.erase(line.find_last_not_of(" \t\r") + 1);
      for (const std::string_view word : {"!includedir", "!include"}) {
        if (!line.starts_with(word) || line.size() == word.size() ||
            (line[word.size()] != ' ' && line[word.size()] != '\t'))
          continue;
        const fs::path named = line.substr(line.find_first_not_of(" \t", word.size()));
        if (word == "!include") {
          if (named.lexically_normal() == settings.managed_file.lexically_normal()) return true;
          files.push_back(named);
        } else {
          if ((named / "").lexically_normal() == (dir / "").lexically_normal()) return true;
        }
      }
    }
  }
  return false;
}

}  // namespace

HostNeeds host_needs(const MysqlSettings& settings) {
  HostNeeds out;
  out.address = settings.advertised_address;
  out.data = {"mysql.data_dir", settings.data_dir};
  out.staging = {"mysql.staging_dir", settings.staging_dir};
  out.places = {{"mysql.managed_file", settings.managed_file}};
  out.secrets = {{"mysql.password_file", settings.password_file.value_or(fs::path())},
                 {"mysql.client_file", settings.client_file.value_or(fs::path())}};
  out.readable = {{"mysql.replication_ca_file", settings.replication_ca_file},
                  {"mysql.tls.ca_file", settings.tls.ca_file}};
  out.owner_key = "mysql.os_user";
  out.owner = settings.os_user;
  out.no_answer_hint = "is it running? see mysql.socket, mysql.user and mysql.password_file";
  out.no_tools_hint = "install mariadb-backup (or xtrabackup for MySQL), or set mysql.tools_dir";
  return out;
}

Check check_managed_file(const MysqlSettings& settings) {
  Check check{"managed file", Check::Result::ok, settings.managed_file.string() + " is read by the server", "",
              Code::failed_precondition};
  try {
    if (is_included(settings)) return check;
    check.message =
        settings.managed_file.string() + ": " + settings.defaults_file.string() + " does not include its directory";
    check.hint = "add \"!includedir " + settings.managed_file.parent_path().string() +
                 "\" at its end, or set mysql.managed_file";
  } catch (const Error& e) {
    check.message = e.what();
    check.hint = e.hint();
    check.code = e.code();
  }
  check.result = Check::Result::failed;
  return check;
}

std::string how_to_look(const MysqlSettings& settings, const fs::path& dir) {
  std::string command;
  for (const std::string& word : settings.server.command) command += in_quotes(word) + " ";
  const std::string socket = in_quotes((dir / "look.sock").string());
  return "To look into it, start a server of its own on it:\n\n  " + command +
         "--no-defaults --datadir=" + in_quotes(dir.string()) + " --socket=" + socket +
         " --pid-file=" + in_quotes((dir / "look.pid").string()) +
         " \\\n    --skip-networking --skip-slave-start --event-scheduler=OFF --user=" + settings.os_user +
         "\n\nand connect with the accounts of the source: mariadb --socket=" + socket + "\n";
}

}  // namespace guestagent::mysql

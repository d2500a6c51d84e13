#include "strategies/mysql/source/host_checks.h"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/child.h"
#include "strategies/mysql/copy/backup_tools.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/host/server_control.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {
namespace {

[[noreturn]] void refuse_host(const std::string& message, const std::string& hint) {
  throw Error(Code::failed_precondition, message, hint);
}

template <typename F>
Check probe(std::string name, F&& attempt) {
  Check check;
  check.name = std::move(name);
  try {
    check.message = attempt();
  } catch (const Error& e) {
    check.result = Check::Result::failed;
    check.message = e.what();
    check.hint = e.hint();
    check.code = e.code();
  }
  return check;
}

std::string data_directory(const MysqlSettings& settings) {
  const fs::path& dir = settings.data_dir;
  struct stat info {};
  if (::stat(dir.c_str(), &info) != 0) {
    const Error why = system_error("mysql.data_dir: " + dir.string(), errno);
    throw Error(why.code(), why.what(), "set it to the server's datadir, and initialise the server if it never ran");
  }
  if (!S_ISDIR(info.st_mode))
    refuse_host("mysql.data_dir: " + dir.string() + ": not a directory", "set it to the server's datadir");
  if (::access(dir.c_str(), R_OK | W_OK | X_OK) != 0) {
    throw Error(Code::permission_denied, "mysql.data_dir: " + dir.string() + ": the agent may not read and write there",
                "run the agent as root");
  }
  if (const passwd* user = ::getpwnam(settings.os_user.c_str()); user != nullptr && user->pw_uid != info.st_uid) {
    refuse_host("mysql.data_dir: " + dir.string() + ": belongs to uid " + std::to_string(info.st_uid) + ", not to " +
                    settings.os_user,
                "set mysql.os_user to the user that the server runs as, or chown the directory");
  }
  return dir.string() + " is the server's";
}

std::string control(const MysqlSettings& settings) {
  std::string how = check_control(settings);
  if (settings.server.control != "systemd") return how;
  const std::string hint =
      "set mysql.server.unit to the server's unit; where systemd does not run, mysql.server.control: commands or "
      "process";
  ChildSpec ask;
  ask.argv = {"systemctl", "show", "--property=LoadState", "--value", settings.server.unit};
  std::string state;
  try {
    state = run_and_read(std::move(ask), Millis{10000});
  } catch (const Error& e) {
    refuse_host("mysql.server.unit: " + settings.server.unit + ": systemd does not tell of it: " + e.what(), hint);
  }
  if (!state.starts_with("loaded"))
    refuse_host("mysql.server.unit: " + settings.server.unit + ": there is no such unit", hint);
  return how;
}

std::vector<std::string> words(std::string_view list) {
  std::vector<std::string> out;
  while (!list.empty()) {
    const std::size_t end = std::min(list.find(','), list.size());
    std::string_view word = list.substr(0, end);
    while (word.starts_with(' ')) word.remove_prefix(1);
    out.emplace_back(word);
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return out;
}

std::string with_commas(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

std::string account_rights(ServerClient& client) {
  if (client.skips_grants()) {
    refuse_host("the server was started with skip_grant_tables: everybody may everything, and no account can be made",
                "take skip_grant_tables out of its option files and restart it");
  }
  const std::vector<std::string> missing = missing_privileges(client.dialect().agent_privileges, client.own_grants());
  if (!missing.empty()) {
    throw Error(Code::permission_denied,
                "the agent's account " + client.target().user + " lacks " + with_commas(missing),
                "GRANT them ON *.* TO it WITH GRANT OPTION");
  }
  return client.target().user + " may do what the agent does";
}

}  // namespace

std::string check_control(const MysqlSettings& settings) {
  server_user(settings);
  const ServerSettings& server = settings.server;
  const std::string& kind = server.control;
  const std::string program = kind == "systemd"    ? "systemctl"
                              : kind == "commands" ? server.start.at(0)
                                                   : server.command.at(0);
  for (const std::string& name : {program, server.command.at(0)}) {
    if (!find_program(name))
      refuse_host("mysql.server: " + name + ": there is no such program",
                  "install it, or set mysql.server.control and mysql.server.command");
  }
  return "by " + (kind == "systemd" ? server.unit : kind == "process" ? "the agent itself (" + program + ")" : program);
}

std::vector<std::string> missing_privileges(std::string_view wanted, const std::vector<std::string>& grants) {
  std::vector<std::string> held;
  bool all = false, option = false;
  for (const std::string& line : grants) {
    const std::size_t on = line.find(" ON *.* TO ");
    if (!line.starts_with("GRANT ") || on == std::string::npos) continue;
    option = option || line.find(" WITH GRANT OPTION", on) != std::string::npos;
    // MySQL writes its dynamic privileges without a space.
    for (const std::string& name : words(std::string_view(line).substr(6, on - 6))) {
      all = all || name == "ALL PRIVILEGES";
      held.push_back(name);
    }
  }
  std::vector<std::string> missing;
  for (const std::string& name : all ? std::vector<std::string>() : words(wanted)) {
    if (std::find(held.begin(), held.end(), name) == held.end()) missing.push_back(name);
  }
  if (!option) missing.emplace_back("GRANT OPTION");
  return missing;
}

std::vector<Check> check_host(const MysqlSettings& settings) {
  std::vector<Check> out;
  out.push_back(probe("data directory", [&] { return data_directory(settings); }));
  out.push_back(probe("server control", [&] { return control(settings); }));
  for (Check& check : check_option_files(settings)) out.push_back(std::move(check));
  out.push_back(probe("account's rights", [&] {
    ServerClient client(local_target(settings));
    return account_rights(client);
  }));
  out.push_back(probe("restore tools", [&] {
    ServerClient client(local_target(settings));
    const ServerVersion version = client.version();
    const BackupTool tool = choose_tool(settings, version);
    if (tool.path.empty()) return "none is needed: the server itself copies (" + tool.name + ")";
    return tool.path.string();
  }));
  return out;
}

}  // namespace guestagent::mysql

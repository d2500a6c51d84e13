#include "strategies/mysql/backup_tools.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <mutex>

#include "base/child.h"
#include "strategies/mysql/tool_info.h"

namespace guestagent::mysql {
namespace {

constexpr std::array kPrograms = {std::string_view("mariadb-backup"), std::string_view("xtrabackup")};
constexpr std::string_view kClone = "clone";

// Older packages have only the old name.
std::vector<std::string_view> names_of(std::string_view tool) {
  if (tool == "mariadb-backup") return {"mariadb-backup", "mariabackup"};
  return {tool};
}

std::string series_of(std::string_view version) {
  const std::size_t first = version.find('.');
  if (first == std::string_view::npos) return std::string(version);
  const std::size_t second = version.find_first_of(".-", first + 1);
  return std::string(version.substr(0, second));
}

std::string where(const MysqlSettings& settings) {
  return settings.tools_dir.empty() ? "on PATH" : "in " + settings.tools_dir.string();
}

}  // namespace

std::optional<fs::path> find_tool_path(const MysqlSettings& settings, std::string_view name) {
  for (const std::string_view each : names_of(name)) {
    if (!settings.tools_dir.empty()) {
      const fs::path path = settings.tools_dir / each;
      if (::access(path.c_str(), X_OK) == 0 && fs::is_regular_file(path)) return path;
      continue;
    }
    if (const auto path = find_program(each)) return fs::path(*path);
  }
  return std::nullopt;
}

std::optional<BackupTool> find_tool(const MysqlSettings& settings, std::string_view name) {
  if (name == kClone) return BackupTool{std::string(kClone), {}, ""};
  const auto path = find_tool_path(settings, name);
  if (!path) return std::nullopt;
  // The version goes to standard output or standard error, depending on the series.
  std::string output;
  std::mutex mutex;
  ChildSpec spec;
  spec.argv = {path->string(), "--no-defaults", "--version"};
  spec.on_line = [&](std::string_view line) {
    const std::scoped_lock lock(mutex);
    if (output.size() < 4096) output += std::string(line) + "\n";
  };
  {
    Child child(std::move(spec));
    child.wait();
  }
  const std::scoped_lock lock(mutex);
  return BackupTool{std::string(name), *path,
                    with_context(path->string(), [&] { return parse_tool_version(output); })};
}

std::map<std::string, std::string> tools_found(const MysqlSettings& settings) {
  std::map<std::string, std::string> out;
  for (const std::string_view name : kPrograms) {
    try {
      if (const auto tool = find_tool(settings, name)) out[tool->name] = tool->version;
    } catch (const Error&) {
      out[std::string(name)] = "";
    }
  }
  return out;
}

std::string tool_misfit(const BackupTool& tool, const ServerVersion& version) {
  const Dialect& dialect = dialect_for(version);
  if (std::find(dialect.backup_tools.begin(), dialect.backup_tools.end(), tool.name) ==
      dialect.backup_tools.end()) {
    std::string fit;
    for (const std::string_view each : dialect.backup_tools)
      fit += (fit.empty() ? "" : " or ") + std::string(each);
    return tool.name + " does not copy " + version.text() + "; use " + fit;
  }
  if (tool.name == kClone) return {};
  const std::string series = series_of(tool.version);
  if (version.family == Family::mariadb) {
    if (series == version.series()) return {};
    return tool.name + " " + tool.version + " does not fit " + version.text() + "; install that of series " +
           version.series();
  }
  if (dialect.xtrabackup_series.empty())
    return "there is no xtrabackup for " + version.text() + "; use clone";
  std::string_view rest = dialect.xtrabackup_series;
  while (!rest.empty()) {
    const std::string_view each = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(rest.size(), each.size() + 1));
    // "9" stands for whatever innovation release there is: the tool's must be the server's.
    if (each == series || (each == "9" && series == version.series())) return {};
  }
  return tool.name + " " + tool.version + " does not fit " + version.text() + "; install that of series " +
         (dialect.xtrabackup_series == "9" ? version.series() : std::string(dialect.xtrabackup_series));
}

BackupTool choose_tool(const MysqlSettings& settings, const ServerVersion& version) {
  std::vector<std::string_view> candidates;
  if (settings.backup_tool != "auto") {
    candidates.push_back(settings.backup_tool);
  } else {
    for (const std::string_view each : dialect_for(version).backup_tools) candidates.push_back(each);
  }
  std::string misfits, missing;
  for (const std::string_view name : candidates) {
    const auto tool = find_tool(settings, name);
    if (!tool) {
      missing += (missing.empty() ? "" : ", ") + std::string(name);
      continue;
    }
    const std::string misfit = tool_misfit(*tool, version);
    if (misfit.empty()) return *tool;
    misfits += (misfits.empty() ? "" : "; ") + misfit;
  }
  if (!misfits.empty()) {
    throw Error(Code::failed_precondition, "choosing the backup tool for " + version.text() + ": " + misfits,
                "the tool's series must be the server's");
  }
  throw Error(
      Code::not_found,
      "choosing the backup tool for " + version.text() + ": " + missing + " is not " + where(settings),
      "install it, or say mysql.tools_dir");
}

fs::path find_extractor(const MysqlSettings& settings, std::string_view format,
                        const ServerVersion& version) {
  if (format != "xbstream") {
    throw Error(Code::invalid_argument,
                "choosing the program that extracts the copy: format \"" + std::string(format.substr(0, 40)) +
                    "\" is not known",
                "upgrade the agent on this host");
  }
  const std::string name = version.family == Family::mariadb ? "mbstream" : "xbstream";
  if (const auto path = find_tool_path(settings, name)) return *path;
  throw Error(Code::not_found,
              "choosing the program that extracts the copy: " + name + " is not " + where(settings),
              "it comes with the backup tool; install that, or say mysql.tools_dir");
}

}  // namespace guestagent::mysql

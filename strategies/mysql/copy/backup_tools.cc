#include "strategies/mysql/copy/backup_tools.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <mutex>

#include "base/child.h"
#include "strategies/mysql/copy/tool_info.h"

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

// What a program says of itself: to standard output or standard error, depending on the series.
std::string version_words(const fs::path& program, std::vector<std::string> options) {
  std::string output;
  std::mutex mutex;
  ChildSpec spec;
  spec.argv = {program.string()};
  spec.argv.insert(spec.argv.end(), options.begin(), options.end());
  spec.on_line = [&](std::string_view line) {
    const std::scoped_lock lock(mutex);
    if (output.size() < 4096) output += std::string(line) + "\n";
  };
  {
    Child child(std::move(spec));
    child.wait();
  }
  const std::scoped_lock lock(mutex);
  return output;
}

unsigned patch_of(std::string_view version) {
  const std::size_t minor = version.find('.');
  const std::size_t dot = minor == std::string_view::npos ? minor : version.find('.', minor + 1);
  unsigned patch = 0;
  if (dot != std::string_view::npos) std::from_chars(version.data() + dot + 1, version.data() + version.size(), patch);
  return patch;
}

// Whether a tool of `series` is one of the row's for a source of `version`.
bool of_series(const CopyFit& row, std::string_view series, const ServerVersion& version) {
  std::string_view rest = row.series;
  while (!rest.empty()) {
    const std::string_view each = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(rest.size(), each.size() + 1));
    if (series == (each == "=" ? version.series() : each)) return true;
  }
  return false;
}

// "2.3 2.4" -> "2.3 or 2.4"
std::string wanted_series(const CopyFit& row, const ServerVersion& version) {
  if (row.series == "=") return version.series();
  std::string out(row.series);
  for (std::size_t at = out.find(' '); at != std::string::npos; at = out.find(' ', at + 4)) out.replace(at, 1, " or ");
  return out;
}

std::string other_tools(const ServerVersion& version) {
  std::string fit;
  for (const std::string_view each : dialect_for(version).backup_tools)
    fit += (fit.empty() ? "" : " or ") + std::string(each);
  return fit;
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
  const std::string output = version_words(*path, {"--no-defaults", "--version"});
  return BackupTool{std::string(name), *path, with_context(path->string(), [&] { return parse_tool_version(output); })};
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
  const CopyFit* const row = copy_fit(version, tool.name);
  if (row == nullptr) return tool.name + " does not copy " + version.text() + "; use " + other_tools(version);
  if (row->series.empty()) return {};
  const std::string misfit = tool.name + " " + tool.version + " does not fit " + version.text() + "; install ";
  if (!of_series(*row, series_of(tool.version), version))
    return misfit + "that of series " + wanted_series(*row, version);
  const unsigned patch = patch_of(tool.version);
  if (patch < row->any_patch_from && patch < version.patch) {
    return misfit + version.series() + "." + std::to_string(std::min(version.patch, row->any_patch_from)) + " or newer";
  }
  return {};
}

std::string prepare_misfit(const BackupTool& tool, const ServerVersion& version) {
  const std::string misfit = tool_misfit(tool, version);
  const CopyFit* const row = copy_fit(version, tool.name);
  if (misfit.empty() || row == nullptr || !row->newer_prepares) return misfit;
  const ServerVersion its = parse_server_version(tool.version, family_name(version.family));
  return its.major == version.major ? (its.minor > version.minor ? "" : misfit)
                                    : (its.major > version.major ? "" : misfit);
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
  throw Error(Code::not_found,
              "choosing the backup tool for " + version.text() + ": " + missing + " is not " + where(settings),
              "install it, or say mysql.tools_dir");
}

std::optional<fs::path> find_upgrade_tool(const MysqlSettings& settings, const ServerVersion& source,
                                          const ServerVersion& target) {
  if (source.series() == target.series()) return std::nullopt;
  const CopyFit* row = nullptr;
  for (const std::string_view tool : dialect_for(source).backup_tools) {
    if (row == nullptr) row = copy_fit(source, tool);
  }
  if (row == nullptr || row->upgrade.empty()) return std::nullopt;
  const std::string name(row->upgrade);
  std::vector<fs::path> places;
  if (!settings.tools_dir.empty()) places.push_back(settings.tools_dir / name);
  if (const auto server = find_program(settings.server.command.at(0))) {
    places.push_back(fs::path(*server).parent_path() / name);
    places.push_back(fs::path(*server).parent_path().parent_path() / "bin" / name);
  }
  if (const auto path = find_program(name)) places.emplace_back(*path);
  std::string others;
  for (const fs::path& path : places) {
    if (::access(path.c_str(), X_OK) != 0 || !fs::is_regular_file(path)) continue;
    // "mariadb-upgrade from 11.8.6-MariaDB, client 15.2 …", "mysql_upgrade Ver 2.0 Distrib 10.11.6-MariaDB, …"
    if (version_words(path, {"--no-defaults", "--version"}).find(" " + target.series() + ".") != std::string::npos)
      return path;
    others += (others.empty() ? "; not of that series: " : ", ") + path.string();
  }
  throw Error(Code::failed_precondition,
              "choosing the program that upgrades the system tables from " + source.text() + " to " + target.text() +
                  ": there is no " + name + " of series " + target.series() + others,
              "install the server's client programs, or say mysql.tools_dir");
}

}  // namespace guestagent::mysql

#include "base/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/journald.h"
#include "base/json.h"
#include "base/text.h"

namespace guestagent {
namespace {

struct Output {
  std::shared_ptr<spdlog::logger> logger;
  LogFormat format = LogFormat::logfmt;
  std::optional<Journald> journald;  // where standard error is its stream

  Output() : logger(std::make_shared<spdlog::logger>("guestagent", std::make_shared<spdlog::sinks::stderr_sink_mt>())) {
    logger->set_pattern("%v");
    logger->set_level(spdlog::level::info);
    if (is_journal_stream(STDERR_FILENO, std::getenv("JOURNAL_STREAM"))) journald.emplace();
  }
};

// Never destroyed: threads that end late may still log.
Output& output() {
  static Output& instance = *new Output;
  return instance;
}

LogScope::Tags& thread_tags() {
  thread_local LogScope::Tags tags;
  return tags;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

std::string_view name_of(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return "debug";
    case LogLevel::info:
      return "info";
    case LogLevel::warning:
      return "warning";
    case LogLevel::error:
      return "error";
  }
  return "info";
}

std::string timestamp() {
  const auto now = std::chrono::system_clock::now();
  const auto millis = std::chrono::floor<std::chrono::milliseconds>(now);
  const std::time_t seconds = std::chrono::floor<std::chrono::seconds>(now).time_since_epoch().count();
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[64];
  const std::size_t n = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  const std::string fraction = std::to_string(1000 + millis.time_since_epoch().count() % 1000);
  return std::string(text, n) + "." + fraction.substr(1) + "Z";
}

// One line whatever the text holds: a log line that a stranger's text could break in two could also be forged
// by it.
std::string logfmt_value(std::string_view text) {
  bool plain = !text.empty();
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte >= 0x7F || c == '"' || c == '=' || c == '\\') plain = false;
  }
  if (plain) return std::string(text);
  JsonWriter quoted;
  quoted.value(text);
  return quoted.text();
}

// syslog's numbers
std::string priority_of(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return "7";
    case LogLevel::info:
      return "6";
    case LogLevel::warning:
      return "4";
    case LogLevel::error:
      return "3";
  }
  return "6";
}

// Time and level are the journal's own; the rest is in the message for people and in fields for `journalctl
// JOB_ID=…`.
bool to_journald(const Journald& journald, LogLevel level, std::string_view message, const LogScope::Tags& tags,
                 std::initializer_list<LogField> fields) {
  std::string text(message);
  std::vector<std::pair<std::string, std::string>> entry = {
      {"MESSAGE", ""}, {"PRIORITY", priority_of(level)}, {"SYSLOG_IDENTIFIER", "guestagent"}};
  const auto add = [&](std::string_view name, const std::string& value) {
    text += " " + std::string(name) + "=" + logfmt_value(value);
    const std::string field = journal_field(name);
    entry.emplace_back(field == "MESSAGE" || field == "PRIORITY" ? "F" + field : field, value);
  };
  if (!tags.job_id.empty()) add("job_id", tags.job_id);
  if (!tags.phase.empty()) add("phase", tags.phase);
  for (const auto& [name, value] : fields) add(name, value);
  entry[0].second = std::move(text);
  return journald.send(entry);
}

std::string logfmt_line(LogLevel level, std::string_view message, const LogScope::Tags& tags,
                        std::initializer_list<LogField> fields) {
  JsonWriter quoted;
  quoted.value(message);
  std::string line = "time=" + timestamp() + " level=" + std::string(name_of(level)) + " msg=" + quoted.text();
  const auto add = [&](std::string_view name, std::string_view value) {
    line += ' ';
    line += name;
    line += '=';
    line += logfmt_value(value);
  };
  if (!tags.job_id.empty()) add("job_id", tags.job_id);
  if (!tags.phase.empty()) add("phase", tags.phase);
  for (const auto& [name, value] : fields) add(name, value);
  return line;
}

std::string json_line(LogLevel level, std::string_view message, const LogScope::Tags& tags,
                      std::initializer_list<LogField> fields) {
  JsonWriter out;
  out.begin_object().member("time", timestamp()).member("level", name_of(level)).member("msg", message);
  if (!tags.job_id.empty()) out.member("job_id", tags.job_id);
  if (!tags.phase.empty()) out.member("phase", tags.phase);
  for (const auto& [name, value] : fields) out.member(name, value);
  return out.end_object().text();
}

}  // namespace

void log_setup(LogLevel level, LogFormat format) {
  output().logger->set_level(to_spdlog(level));
  output().format = format;
}

void log_set_level(LogLevel level) {
  output().logger->set_level(to_spdlog(level));
}

LogLevel log_level_from(std::string_view name) {
  for (const LogLevel level : {LogLevel::debug, LogLevel::info, LogLevel::warning, LogLevel::error}) {
    if (name == name_of(level)) return level;
  }
  throw Error(Code::invalid_argument, "choosing the log level: \"" + printable(name) + "\" is none",
              "one of debug, info, warning, error");
}

void log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  Output& out = output();
  if (!out.logger->should_log(to_spdlog(level))) return;
  const LogScope::Tags& tags = thread_tags();
  if (out.journald && to_journald(*out.journald, level, message, tags, fields)) return;
  const std::string line = out.format == LogFormat::json ? json_line(level, message, tags, fields)
                                                         : logfmt_line(level, message, tags, fields);
  out.logger->log(to_spdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

LogScope::LogScope(Tags tags) : previous_(std::move(thread_tags())) {
  thread_tags() = std::move(tags);
}
LogScope::~LogScope() {
  thread_tags() = std::move(previous_);
}
LogScope::Tags LogScope::current() {
  return thread_tags();
}
void LogScope::set_phase(std::string_view phase) {
  thread_tags().phase = phase;
}

}  // namespace guestagent

// The agent's log: one line an event, to standard error (and to journald's fields when that is where standard error
// goes).
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace guestagent {

enum class LogLevel { debug, info, warning, error };
enum class LogFormat { logfmt, json };

// Once, at start, before threads. Until then: info, logfmt.
void log_setup(LogLevel level, LogFormat format);
// At any time, from any thread.
void log_set_level(LogLevel level);
// "debug", "info", "warning", "error"; throws Error(invalid_argument).
LogLevel log_level_from(std::string_view name);

using LogField = std::pair<std::string_view, std::string>;

// Fields never hold a Secret: it has no conversion to string on purpose. Thread-safe.
void log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {});
inline void log_info(std::string_view m, std::initializer_list<LogField> f = {}) {
  log(LogLevel::info, m, f);
}
inline void log_warning(std::string_view m, std::initializer_list<LogField> f = {}) {
  log(LogLevel::warning, m, f);
}
inline void log_error(std::string_view m, std::initializer_list<LogField> f = {}) {
  log(LogLevel::error, m, f);
}
inline void log_debug(std::string_view m, std::initializer_list<LogField> f = {}) {
  log(LogLevel::debug, m, f);
}

// While it lives, every line of this thread carries the job's id and phase. A worker thread takes over its parent's
// with LogScope(LogScope::current()).
class LogScope {
 public:
  struct Tags {
    std::string job_id;
    std::string phase;
  };
  explicit LogScope(Tags tags);
  ~LogScope();
  LogScope(const LogScope&) = delete;
  LogScope& operator=(const LogScope&) = delete;
  static Tags current();
  static void set_phase(std::string_view phase);

 private:
  Tags previous_;
};

}  // namespace guestagent

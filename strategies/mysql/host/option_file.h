// Option files of the server: the one that the agent manages, and how the server reads the others around it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/server/dialect.h"

namespace guestagent::mysql {

// --- the managed file ---

// What the agent wants of the server from its next start on. It holds no secret.
struct ManagedOptions {
  ReplicationRole role = ReplicationRole::replica;
  std::uint32_t server_id = 0;
  bool read_only = true;
  // The event scheduler as it was before this server became a replica, or was told to refuse writes; then its own is
  // off, since events may be of accounts that pass read_only. A standalone one gets this back.
  std::optional<bool> scheduler_before;
  std::string report_host;
  std::uint16_t report_port = 0;
  std::string log_bin, relay_log;  // base names; empty: not set here, since the server's own options name them
  bool mysql_gtid = false;         // gtid_mode=ON with what it needs; MariaDB has no switch
  bool mixed_binlog =
      false;               // binlog_format=MIXED, since a server that logs statements only cannot log a source's rows
  std::string hidden_dir;  // a directory in the data directory that is no database (MariaDB would list it as one)

  // A source's file says nothing of it.
  bool refuses_writes() const { return role != ReplicationRole::source && read_only; }
};

// The file's text, in the server's vocabulary.
std::string write_managed(const ManagedOptions& options, const Dialect& dialect);

// What an earlier write_managed said; nullopt for a file that is not there or is not ours.
std::optional<ManagedOptions> read_managed(const fs::path& file);

// Where `file` is a replica's as an earlier version of the agent wrote it, writes it as this one does; true when it
// has.
bool renew_managed(const fs::path& file, const Dialect& dialect);

// In place of the managed file while data is exchanged: the server refuses to start, under whatever control, and says
// why.
std::string guard_text();
inline constexpr std::string_view kGuardOption = "guestagent-switch-in-progress";
bool guard_stands(const fs::path& file);

// Puts `text` in the managed file's place, mode 0644, durable. nullopt removes the file.
void put_managed(const fs::path& file, const std::optional<std::string>& text);

// --- the files around it ---

struct OptionLine {
  fs::path file;
  unsigned line = 0;
  std::string group;  // "mysqld"
  std::string name;   // with '_' for '-', without "loose_"
  std::string value;
};

// Everything that `defaults_file` includes, in the order in which the server reads it.
struct OptionFiles {
  struct File {
    fs::path path;
    std::size_t first_line = 0;  // how many of `lines` come before it
  };
  std::vector<File> files;
  std::vector<OptionLine> lines;
};
// `expected` is a file that need not be there yet: it is listed (empty) where the server would read it. Throws Error:
// not_found, permission_denied, invalid_argument (an include that leads in a circle).
OptionFiles read_option_files(const fs::path& defaults_file, const fs::path& expected = {});

// Whether a server reads the options of `group` ("mysqld", "mariadb-10.11", "server", …).
bool is_server_group(std::string_view group);

// All files as one text without includes and without the file `except`: for a start that the guard must not stop.
std::string flatten_option_files(const fs::path& defaults_file, const fs::path& except);

// The checks that the server really reads the managed file, and nothing after it that contradicts it: option files,
// then mysql.server.command. `replica`: of what only a replica's managed file sets as well.
std::vector<Check> check_option_files(const MysqlSettings& settings, bool replica = false);
// The options of all files but the managed one, then those of mysql.server.command: what stands beside the managed
// file.
std::vector<OptionLine> other_options(const MysqlSettings& settings);
// The file that the server writes its errors to, by those options; empty where none is named, or they cannot be read.
fs::path configured_error_log(const MysqlSettings& settings);

}  // namespace guestagent::mysql

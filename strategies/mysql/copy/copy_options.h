// The options that a copy brings for its own preparing (backup-my.cnf). They come from outside, and a tool would load
// what they name: so they are read, and written anew from what may be in them.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/settings.h"

namespace guestagent::mysql {

inline constexpr std::string_view kCopyOptionsFile = "backup-my.cnf";

struct CopyOptions {
  std::vector<std::pair<std::string, std::string>> kept;  // names with '_', values plain
  std::string key_plugin;                                 // "file_key_management"; empty: the copy needs no keys
  std::vector<std::string> dropped;                       // names that no preparing needs
};

// Throws Error(data_loss) for what no backup tool writes: an include, a plugin that keeps no keys, a value that is not
// plain.
CopyOptions read_copy_options(std::string_view text);

// The file's text for the tool that prepares (mariadb-backup, else xtrabackup): what was kept, and for encrypted copies
// this host's own key plugin with this host's own options, never the copy's. Throws Error(failed_precondition) where
// this host has none such.
std::string write_copy_options(const CopyOptions& options, bool mariadb, const MysqlSettings& settings);

// Where this host's server has its plugins: its option files or its command say it, else the program itself.
std::string own_plugin_dir(const MysqlSettings& settings);

}  // namespace guestagent::mysql

// What the server's configuration has placed in its data directory.
#pragma once

#include <string>
#include <vector>

#include "strategies/mysql/option_file.h"
#include "strategies/mysql/switch_data.h"

namespace guestagent::mysql {

// By the configured `options` (option files, then command line) and what lies there: files of keys and certificates, manifests and
// settings of MySQL's components with the files that these name; directories for temporary files and logs.
HostPlaces host_places(const fs::path& data_dir, const std::vector<OptionLine>& options);

}  // namespace guestagent::mysql

// What the server's configuration has placed in its data directory.
#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "strategies/mysql/host/option_file.h"

namespace guestagent::mysql {

// What lies in a data directory and is not the data's but the host's. It goes away with the old data, so that nothing
// can happen to it, and is put beside the new as well.
struct HostPlaces {
  std::vector<std::string>
      kept;  // entries of the data directory, copied: keys, certificates, manifests that the configuration names
  std::vector<fs::path>
      needed;  // directories in it that the server does not start without, made again beside the new data
};

// By the configured `options` (option files, then command line) and what lies there: files of keys and certificates,
// manifests and settings of MySQL's components with the files that these name; directories for temporary files and
// logs.
HostPlaces host_places(const fs::path& data_dir, const std::vector<OptionLine>& options);

}  // namespace guestagent::mysql

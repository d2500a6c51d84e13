// A directory as a tar stream, and back, by libarchive. Only directories and regular files, so that what is read back
// can lead nowhere.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/file.h"
#include "stream/byte_stream.h"

namespace guestagent {

// Everything below `dir` (not `dir` itself) as a POSIX tar archive, which stock tar reads. Memory stays flat at any
// number and size of files. Whoever changes `dir` meanwhile gets nothing into the archive that is not below it. read()
// throws Error: failed_precondition for a link, a device or the like, data_loss for a file that became shorter while it
// was read, else what the file system said.
std::unique_ptr<ByteSource> tar_directory(const fs::path& dir);

// Makes in `dir`, which must be empty and nobody else's, what the archive in `stream` has; files for which `wanted`
// answers false are read and dropped. `look` sees each entry's path and mode (type and permission bits) before it is
// made, and may throw. Directories get the mode 0700, files 0600. `between` is called between blocks and may throw.
// Reads `stream` to its end. Throws Error(data_loss) for what is no complete tar archive of relative paths below `dir`,
// each once, of directories and regular files: nothing outside of `dir` is touched, whatever the archive says. What was
// made before an Error stays.
void untar(ByteSource& stream, const fs::path& dir, const std::function<bool(std::string_view path)>& wanted,
           const std::function<void()>& between,
           const std::function<void(std::string_view path, unsigned mode)>& look = {});

}  // namespace guestagent

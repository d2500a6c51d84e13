// A directory as a store: the root is PATH/CONTAINER/PREFIX, an object is a file below it.
//
// A put is a temporary file beside its goal, written, fsynced and renamed, then the directory is fsynced.
// Directories have mode 0700, files 0600. A crash leaves at most a temporary file: no name of an object, so
// list() never tells it, and remove() of anything in its directory takes it away when nothing else is left
// there (a live one is locked and stays). Symbolic links below the root are never followed; the root's own
// path may have some. Beside the contract: an object cannot have the name of a "directory" of other objects
// (failed_precondition).
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>

#include "storage/object_store.h"

namespace guestagent {

// Nothing is created before the first put. `path` is made absolute.
std::unique_ptr<ObjectStore> make_local_store(const std::filesystem::path& path, std::string_view container,
                                              std::string_view prefix);

}  // namespace guestagent

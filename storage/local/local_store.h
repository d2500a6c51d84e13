// A directory as a store: the root is PATH/CONTAINER/PREFIX, an object is a file below it.
//
// A put is a temporary file beside its goal, written, fsynced and renamed, then the directory is fsynced.
// Directories have mode 0700, files 0600. A crash leaves at most a temporary file: no name of an object, so
// list() never tells it, and remove() of anything in its directory takes it away when nothing else is left
// there (a live one is locked and stays). Symbolic links below the root are never followed; the root's own
// path may have some. Where that path leads nowhere (a link to what is not there, a loop of links, a file in a
// directory's place, a file system of /etc/fstab that is not mounted), every call is failed_precondition, also the
// reading ones: such a store is not an empty one. Beside the contract: an object cannot have the name of a "directory"
// of other objects (failed_precondition).
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>

#include "storage/object_store.h"

namespace guestagent {

// Nothing is created before the first put. `path` is made absolute. `fstab`: what is to be mounted on this host.
std::unique_ptr<ObjectStore> make_local_store(const std::filesystem::path& path, std::string_view container,
                                              std::string_view prefix,
                                              const std::filesystem::path& fstab = "/etc/fstab");

}  // namespace guestagent

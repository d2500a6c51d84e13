// Which names a copy may bring: those that a data directory can have, and nothing that a server or a tool would load or
// obey.
#pragma once

#include <string>
#include <string_view>

namespace guestagent::mysql {

// Why `path`, of an entry of a copy, is refused; "" for one that may be in a data directory.
std::string copy_name_misfit(std::string_view path);

// Throws Error(data_loss) for a misfit: nothing of the copy is taken.
void check_copy_name(std::string_view path);

// Options of a keyring component, as xtrabackup puts them into its copy.
bool is_component_options(std::string_view path);

// Throws Error(data_loss) for a mode (type and permission bits) that nothing in a data directory has: set user id and
// the like.
void check_copy_mode(std::string_view path, unsigned mode);

}  // namespace guestagent::mysql

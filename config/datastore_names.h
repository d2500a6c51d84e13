// Names of datastores that the wire has, for those who do not know the table of datastores.
#pragma once

#include <string_view>

namespace guestagent {

// Settings::datastore where the file says none. In the controller's API the object that tells what an instance
// replicates has this name.
inline constexpr std::string_view kDefaultDatastore = "mysql";

}  // namespace guestagent

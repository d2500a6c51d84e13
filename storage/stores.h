// The table of stores: the one place that knows their names.
#pragma once

#include <memory>
#include <string_view>

#include "config/settings.h"
#include "storage/object_store.h"

namespace guestagent {

// The configured store, with retries around it. Opens nothing: the first request does. Throws Error(invalid_argument)
// for a store nobody knows, and what reading its secret files throws.
std::unique_ptr<ObjectStore> make_store(const StorageSettings& settings, Clock& clock);

}  // namespace guestagent

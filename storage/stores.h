// The table of stores: the one place that knows their names.
#pragma once

#include <memory>
#include <string_view>

#include "config/settings.h"
#include "config/store_section.h"
#include "storage/object_store.h"

namespace guestagent {

// The sections of all stores, for load_settings().
StoreSections store_sections();

// The configured store, with retries around it. Opens nothing: the first request does. Throws Error(invalid_argument)
// for a store nobody knows, and what reading its secret files throws.
std::unique_ptr<ObjectStore> make_store(const StorageSettings& settings, Clock& clock);

// What the configured store has on this host. Throws Error(invalid_argument) for a store nobody knows. Opens nothing.
StoreNeeds describe_store(const StorageSettings& settings);

}  // namespace guestagent

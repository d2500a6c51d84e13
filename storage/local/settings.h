// The section storage.local.
#pragma once

#include "config/settings.h"
#include "config/store_section.h"

namespace guestagent {

struct LocalStoreSettings {
  fs::path path = "/var/lib/guestagent/store";
  bool operator==(const LocalStoreSettings&) const = default;
};

// As StoreSection has them.
void read_local_settings(YamlReader& in, OwnSettings& out, bool selected);
StoreNeeds describe_local_settings(const OwnSettings& own);

}  // namespace guestagent

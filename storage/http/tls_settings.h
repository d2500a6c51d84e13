// The section `tls` of a store that is reached by HTTP.
#pragma once

#include <string_view>

#include "config/settings.h"
#include "config/store_section.h"

namespace guestagent {

void read_store_tls(YamlReader& in, TlsClientSettings& out);

// What of it a check of this host looks at. `section`: "storage.swift".
void describe_store_tls(std::string_view section, const TlsClientSettings& tls, StoreNeeds& out);

// Adds a file that is set.
void add_store_file(StoreNeeds& out, std::string_view section, std::string_view key, const fs::path& path, bool secret);

}  // namespace guestagent

// The names of all settings, for `check-config` and for the test that holds the shipped file to them.
#pragma once

#include <string>
#include <vector>

#include "config/store_section.h"

namespace guestagent {

// Every key the parser knows, as its path ("storage.swift.auth_url"), in the order of the shipped file.
std::vector<std::string> setting_keys(StoreSections stores);

}  // namespace guestagent

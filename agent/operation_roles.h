// What the role's methods answer, where more than one place writes it.
#pragma once

#include <string>
#include <vector>

namespace guestagent {

// Of demote_replication_source.
std::string demoted(const std::vector<std::string>& dropped);

}  // namespace guestagent

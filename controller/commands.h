// The controller's part of the command line: the role itself, and a small client of its API.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace guestagent::controller {

// Runs the command when it is one of the controller's (its name is the first argument) and answers its exit
// status; nullopt when it is not. `arguments` are those after the program's name. Throws Error, also for what
// was typed wrongly.
std::optional<int> command(const std::vector<std::string>& arguments);

// The lines about these commands in the program's help.
std::string commands_help();

}  // namespace guestagent::controller

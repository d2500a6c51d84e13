// What the user typed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace guestagent {

struct CommandLine {
  std::string command;  // "daemon", "oneshot", "call", "check-config", "doctor", "cat", "restore", "help", "version"
  std::string help_of;  // help: the command that it is about, or empty
  fs::path config;
  bool verbose = false;
  std::string method, params;  // oneshot, call; params as typed: JSON text, "@FILE", "-" or nothing
  std::string href;            // cat, restore
  fs::path to;                 // restore
  bool allow_plain = false;    // cat, restore
  bool syntax_only = false;    // check-config
  bool json = false;           // doctor
};

// Throws Error(invalid_argument) with a hint that shows how it is typed.
CommandLine parse_command_line(const std::vector<std::string>& arguments);

// What --help prints.
std::string help_text(std::string_view command);

}  // namespace guestagent

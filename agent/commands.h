// One function a command, each in a file of its own (cmd_*.cc). They answer the exit status and throw Error.
#pragma once

#include "agent/command_line.h"
#include "base/error.h"

namespace guestagent {

int run_daemon(const CommandLine& line);
int run_oneshot(const CommandLine& line);
int run_call(const CommandLine& line);
int run_check_config(const CommandLine& line);
int run_doctor(const CommandLine& line);
int run_cat(const CommandLine& line);
int run_restore(const CommandLine& line);

// For people, on standard error: "error: …", "hint: …", "code: …". Answers the exit status of the error's
// code.
int show_error(const Error& error);

// What PARAMS stands for: JSON text, the content of @FILE, standard input for -, {} for nothing.
std::string read_params(const std::string& typed);

// A result, and a line's end. Throws when it cannot be written.
// Before anything is done: failed_precondition where standard output is closed, or nobody reads it.
void check_result_can_be_written();
void print_result(const std::string& json);

}  // namespace guestagent

#include <fcntl.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "agent/commands.h"
#include "controller/commands.h"
#include "strategies/datastores.h"

namespace {

using namespace guestagent;

int run(const CommandLine& line) {
  if (line.command == "daemon") return run_daemon(line);
  if (line.command == "oneshot") return run_oneshot(line);
  if (line.command == "call") return run_call(line);
  if (line.command == "check-config") return run_check_config(line);
  if (line.command == "doctor") return run_doctor(line);
  if (line.command == "cat") return run_cat(line);
  if (line.command == "restore") return run_restore(line);
  if (line.command == "version") {
    std::puts("guestagent " GUESTAGENT_VERSION);
  } else {
    std::fputs(help_text(line.help_of).c_str(), stdout);
    if (line.help_of.empty()) std::printf("\ncontroller:\n%s", controller::commands_help().c_str());
  }
  return 0;
}

// A standard descriptor that is closed would be the next file's or socket's that is opened, and what is meant for
// people would be written there. Reading only: what cannot be written must fail.
void hold_standard_descriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF) static_cast<void>(::open("/dev/null", O_RDONLY));
  }
}

// A datastore's libraries are told by the configuration alone; a core of this program would hold passwords.
void keep_to_ourselves() {
  for (const char* name : foreign_environment()) ::unsetenv(name);
  ::prctl(PR_SET_DUMPABLE, 0);
}

}  // namespace

int main(int argc, char** argv) {
  hold_standard_descriptors();
  keep_to_ourselves();
  // An arena a thread would keep what each of them once needed.
  ::mallopt(M_ARENA_MAX, 2);
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (const auto status = controller::command(arguments)) return *status;
    return run(parse_command_line(arguments));
  } catch (const std::exception& e) {
    const auto* known = dynamic_cast<const Error*>(&e);
    return show_error(known ? *known : to_error(e));
  }
}

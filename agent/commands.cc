#include "agent/commands.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "agent/jobs.h"
#include "agent/rpc_error.h"
#include "base/file.h"

namespace guestagent {
namespace {

constexpr std::size_t kMaxParams = std::size_t{1} << 20;

// A snapshot's metadata go into a file as easily as anything else does.
void warn_of_readers(const std::string& result) {
  struct stat info {};
  if (result.find("\"password\"") == std::string::npos || ::fstat(STDOUT_FILENO, &info) != 0) return;
  if (!S_ISREG(info.st_mode) || (info.st_mode & (S_IRGRP | S_IROTH)) == 0) return;
  std::fputs(
      "warning: the result holds a password, and others may read the file that it went to: chmod 600 it now, and "
      "say umask 077 before the next time\n",
      stderr);
}

}  // namespace

int show_error(const Error& error) {
  std::string text = "error: " + std::string(error.what()) + "\n";
  if (const std::string hint = hint_of(error); !hint.empty()) text += "hint: " + hint + "\n";
  text += "code: " + std::string(code_row(error.code()).wire) + "\n";
  if (const auto* job = dynamic_cast<const JobError*>(&error)) text += "job: " + job->job_id() + "\n";
  std::fputs(text.c_str(), stderr);
  return code_row(error.code()).exit_status;
}

std::string read_params(const std::string& typed) {
  if (typed.empty()) return "{}";
  if (typed.front() != '@' && typed.find("\"password\"") != std::string::npos) {
    std::fputs(
        "warning: these params hold a password, and everybody on this host can read a command line; pass them as "
        "@FILE, or - for "
        "standard input\n",
        stderr);
  }
  if (typed == "-") return read_file("/dev/stdin", kMaxParams);
  if (typed.front() == '@') {
    try {
      return read_file(typed.substr(1), kMaxParams);
    } catch (const Error& e) {
      throw Error(e.code(), std::string("params: ") + e.what(), "@FILE names a file that holds the params");
    }
  }
  if (const std::size_t at = typed.find_first_not_of(" \t\r\n"); at == std::string::npos || typed[at] != '{') {
    throw Error(Code::invalid_argument, "params: no JSON object",
                "they are typed as an object: '{\"snapshot_id\": \"monday\"}', or come from a file: @FILE");
  }
  return typed;
}

void check_result_can_be_written() {
  if ((::fcntl(STDOUT_FILENO, F_GETFL) & O_ACCMODE) == O_RDONLY) {  // as main() leaves a closed one
    throw Error(Code::failed_precondition, "write the result to standard output: it is closed",
                "direct it to a file, or to /dev/null");
  }
  pollfd look{STDOUT_FILENO, POLLOUT, 0};
  if (::poll(&look, 1, 0) > 0 && (look.revents & (POLLERR | POLLNVAL)) != 0) {
    throw Error(Code::failed_precondition, "write the result to standard output: whoever was to read it has gone",
                "direct it to a file, or to /dev/null");
  }
}

void print_result(const std::string& json) {
  const std::string text = json + "\n";
  for (std::string_view rest = text; !rest.empty();) {
    const ssize_t n = ::write(STDOUT_FILENO, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const Error why = system_error("write the result to standard output", errno);
      throw Error(why.code(), why.what(),
                  "what was to be done is done; the result is kept: guestagent call list_jobs names the job, "
                  "guestagent call get_job shows it");
    }
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
  warn_of_readers(json);
}

}  // namespace guestagent

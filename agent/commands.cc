#include "agent/commands.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "agent/jobs.h"
#include "agent/rpc_error.h"
#include "base/file.h"

namespace guestagent {
namespace {
constexpr std::size_t kMaxParams = std::size_t{1} << 20;
}

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
  if (typed == "-") return read_file("/dev/stdin", kMaxParams);
  if (typed.front() == '@') return read_file(typed.substr(1), kMaxParams);
  return typed;
}

void print_result(const std::string& json) {
  const std::string text = json + "\n";
  for (std::string_view rest = text; !rest.empty();) {
    const ssize_t n = ::write(STDOUT_FILENO, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error("write the result to standard output", errno);
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace guestagent

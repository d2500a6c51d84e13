// The answer of a dry run.
#pragma once

#include <string>

#include "strategies/datastore.h"

namespace guestagent {

// `{"dry_run": true, "ok": …, "checks": [{name, result, message, hint?, code?}], "steps": […]}`
std::string write_plan(const Plan& plan);

// A check from what an attempt throws: passed with `message` when `attempt` returns.
template <typename F>
Check check_by(std::string name, std::string message, F&& attempt) {
  Check check{std::move(name), Check::Result::ok, std::move(message), {}, Code::failed_precondition};
  try {
    attempt();
  } catch (const Error& e) {
    check.result = Check::Result::failed;
    check.message = e.what();
    check.hint = e.hint();
    check.code = e.code();
  }
  return check;
}

std::string_view result_name(Check::Result result);  // "ok", "warning", "failed", "skipped"

}  // namespace guestagent

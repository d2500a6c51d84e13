#include "agent/plans.h"

#include <algorithm>

#include "base/enum_text.h"

namespace guestagent {
namespace {

constexpr EnumTexts<Check::Result, 4> kCheckResults = {{"ok", "warning", "failed", "skipped"}};

}  // namespace

std::string_view result_name(Check::Result result) {
  return kCheckResults.text(result);
}

std::string write_plan(const Plan& plan) {
  const bool ok = std::none_of(plan.checks.begin(), plan.checks.end(),
                               [](const Check& check) { return check.result == Check::Result::failed; });
  JsonWriter out;
  out.begin_object().member("dry_run", true).member("ok", ok);
  out.key("checks").begin_array();
  for (const Check& check : plan.checks) {
    out.begin_object().member("name", check.name).member("result", result_name(check.result));
    out.member("message", check.message);
    if (!check.hint.empty()) out.member("hint", check.hint);
    if (check.result == Check::Result::failed) out.member("code", code_row(check.code).wire);
    out.end_object();
  }
  out.end_array().key("steps").begin_array();
  for (const std::string& step : plan.steps) out.value(step);
  out.end_array().end_object();
  return out.text();
}

}  // namespace guestagent

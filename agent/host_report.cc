#include "agent/host_report.h"

#include <algorithm>

#include "agent/plans.h"
#include "base/json.h"

namespace guestagent {
namespace {

std::string padded(std::string text, std::size_t width) {
  text.resize(std::max(width, text.size()), ' ');
  return text;
}

void write_check(JsonWriter& out, const Check& check, bool with_code) {
  out.begin_object()
      .member("name", check.name)
      .member("result", result_name(check.result))
      .member("message", check.message);
  if (!check.hint.empty()) out.member("hint", check.hint);
  if (with_code && check.result == Check::Result::failed) out.member("code", code_row(check.code).wire);
  out.end_object();
}

}  // namespace

std::string check_lines(const Check& check) {
  const char* mark = check.result == Check::Result::ok        ? "ok  "
                     : check.result == Check::Result::failed  ? "FAIL"
                     : check.result == Check::Result::warning ? "warn"
                                                              : "skip";
  std::string out = std::string(mark) + "  " + padded(check.name, 16) + " " + check.message + "\n";
  if (!check.hint.empty() && check.result != Check::Result::ok)
    out += std::string(22, ' ') + " -> " + check.hint + "\n";
  return out;
}

void HostReport::add(Check check) {
  checks_.push_back(std::move(check));
}

void HostReport::add(std::vector<Check> checks) {
  for (Check& check : checks) checks_.push_back(std::move(check));
}

void HostReport::add_mild(std::vector<Check> checks) {
  for (Check& check : checks) {
    if (check.result == Check::Result::failed) check.result = Check::Result::warning;
    checks_.push_back(std::move(check));
  }
}

bool HostReport::ok() const {
  return exit_status() == 0;
}

int HostReport::exit_status() const {
  for (const Check& check : checks_) {
    if (check.result == Check::Result::failed) return code_row(check.code).exit_status;
  }
  return 0;
}

std::vector<const Check*> HostReport::to_fix() const {
  std::vector<const Check*> out;
  for (const Check::Result wanted : {Check::Result::failed, Check::Result::warning}) {
    for (const Check& check : checks_) {
      if (check.result == wanted) out.push_back(&check);
    }
  }
  return out;
}

std::string HostReport::text() const {
  std::string out;
  for (const Check& check : checks_) out += check_lines(check);
  const std::vector<const Check*> fix = to_fix();
  if (fix.empty()) return out + "\nNothing to fix.\n";
  out += ok() ? "\nNothing must be fixed. Better, in this order:\n" : "\nTo fix, in this order:\n";
  unsigned number = 0;
  for (const Check* check : fix) {
    const bool mild = check->result == Check::Result::warning;
    out += "  " + std::to_string(++number) + ". " + (mild && !ok() ? "(better) " : "") + check->name + ": " +
           check->message + "\n";
    if (!check->hint.empty()) out += "     -> " + check->hint + "\n";
  }
  return out;
}

std::string HostReport::json() const {
  JsonWriter out;
  out.begin_object().member("ok", ok()).key("checks").begin_array();
  for (const Check& check : checks_) write_check(out, check, true);
  out.end_array().key("fix").begin_array();
  for (const Check* check : to_fix()) write_check(out, *check, false);
  out.end_array().end_object();
  return out.text();
}

}  // namespace guestagent

#include "strategies/datastore.h"

namespace guestagent {

void require_passed(const Plan& plan, JobContext& job) {
  const Check* first = nullptr;
  std::string others;
  for (const Check& check : plan.checks) {
    if (check.result == Check::Result::warning) job.warn(check.name + ": " + check.message);
    if (check.result != Check::Result::failed) continue;
    if (first == nullptr) {
      first = &check;
    } else {
      others += (others.empty() ? "" : "; ") + check.name + ": " + check.message;
    }
  }
  if (first == nullptr) return;
  std::string hint = first->hint;
  if (!others.empty()) hint += (hint.empty() ? "" : ". ") + ("also failed: " + others);
  throw Error(first->code, "checking before the start: " + first->name + ": " + first->message, hint);
}

}  // namespace guestagent

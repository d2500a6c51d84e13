// The methods of the RPC, a row each. The dispatcher, --help, the completions and the manual page have them from here.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/jobs.h"
#include "agent/operations.h"
#include "base/json.h"

namespace guestagent {

enum class MethodKind {
  changing,  // a job, one at a time on a host
  reading,   // a job, beside others; one of a method at a time
  waiting,   // a job that only waits, beside any other
  at_once,
};

struct MethodParam {
  std::string_view name;
  std::string_view form = {};  // "?": may be left out; what it holds, where a name does not say it
};

// What a call of a job's method comes to, once its params were read.
struct PreparedJob {
  Jobs::Work work;
  std::function<Plan()> plan;
};

// True once nobody waits for the answer any more.
using CallerGone = std::function<bool()>;

struct Method {
  std::string_view name;
  MethodKind kind;
  std::vector<MethodParam> params;  // beside those that every job takes
  std::string_view help;            // one sentence
  // A job's: reads the params and throws what is wrong with them. `operations` outlives what it returns.
  PreparedJob (*prepare)(Operations& operations, const JsonReader& params) = nullptr;
  // at_once: the result as JSON text.
  std::string (*answer)(Operations&, Jobs&, const JsonReader& params, const CallerGone& gone) = nullptr;
  // A job's: what the datastore finishes or undoes of it.
  Undertaking undertaking = Undertaking::other;

  bool is_job() const { return kind != MethodKind::at_once; }
};

// Jobs::wait, which ends also when nobody waits for the answer any more: whoever hangs up in a long job leaves no
// thread behind.
JobRecord wait_for_job(Jobs& jobs, const std::string& id, Millis timeout, const CallerGone& gone);

const std::vector<Method>& methods();
std::vector<std::string_view> method_names();
// nullptr: there is none.
const Method* find_method(std::string_view name);

// For people: each name with its params, and the sentence below it.
std::string methods_text();

}  // namespace guestagent
